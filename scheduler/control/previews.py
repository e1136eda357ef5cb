"""Previews of builds that are here, kept for a while: that of a large build takes long."""

from typing import Final, TypeAlias

import trio

from scheduler.control.eta import EtaEstimator
from scheduler.control.remembered import Remembered
from scheduler.control.verbs import Document
from scheduler.supervision.explainer import Seen

_FRESH: Final = 1.0
"""Seconds for which a preview is good at least."""
_SHARE: Final = 20.0
"""Seconds for which a preview is good, for each second that it took."""

_Run: TypeAlias = tuple[str, str]
"""Build, and the identity of its run."""


class Previews:
    """Makes previews, one at a time, and keeps the last one.

    Args:
        eta: makes the previews.
    """

    def __init__(self, eta: EtaEstimator) -> None:
        self._eta = eta
        self._turn = trio.Lock()
        self._last: Remembered[_Run, Document] = Remembered()

    async def run(self) -> None:
        """Drop what was kept, after a while; never returns."""
        await self._last.run()

    async def preview(self, seen: Seen) -> Document:
        """Return the document of `scheduler.forecast.preview.Preview` for a build."""
        key = seen.plan.build.id, seen.identity
        async with self._turn:
            preview = self._last.get(key)
            if preview is None:
                began = trio.current_time()
                preview = await self._eta.preview(seen.plan.prepared)
                ended = trio.current_time()
                self._last.keep(key, preview, ended + max(_FRESH, _SHARE * (ended - began)))
            return preview
