"""Previews of builds that are here, each kept for a while: of a large build it takes long."""

from typing import Final, TypeAlias

import trio

from scheduler.control.eta import EtaEstimator
from scheduler.control.remembered import Remembered
from scheduler.control.verbs import Document
from scheduler.supervision.explainer import Seen

_FRESH: Final = 1.0
"""Seconds for which a preview is good at least."""
_SHARE: Final = 20.0
"""Seconds for which a preview is good, by seconds that it took."""

_Run: TypeAlias = tuple[str, str]
"""A build and which run of it."""


class Previews:
    """Makes previews, one at a time, and keeps the last one.

    Args:
        eta: predicts.
    """

    def __init__(self, eta: EtaEstimator) -> None:
        self._eta = eta
        self._turn = trio.Lock()
        self._last: Remembered[_Run, Document] = Remembered()

    async def run(self) -> None:
        """Let go of what was kept; never returns."""
        await self._last.run()

    async def preview(self, seen: Seen) -> Document:
        """What a build will do, as `scheduler.forecast.preview.Preview.document` says it."""
        key = seen.plan.build.id, seen.identity
        async with self._turn:
            preview = self._last.get(key)
            if preview is None:
                began = trio.current_time()
                preview = await self._eta.preview(seen.plan.prepared)
                ended = trio.current_time()
                self._last.keep(key, preview, ended + max(_FRESH, _SHARE * (ended - began)))
            return preview
