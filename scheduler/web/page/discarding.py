"""Frees what is large in slices: to let go of ten thousand documents at once would hold the loop."""

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import trio

from scheduler.runtime.courtesy import give_way

_SLICE: Final = 300
"""Documents between two turns of other work: half a millisecond."""
_FEW: Final = 1_000
"""Documents that are freed as they are."""


class Discarded:
    """Documents that nobody needs any more, or will not before long; `run` frees them."""

    def __init__(self) -> None:
        self._waiting: deque[list[Any]] = deque()
        self._wake = trio.Event()

    def add(self, documents: Sequence[Any]) -> None:
        """Take a list that is about to be dropped; synchronous. Whoever has it yet keeps it whole."""
        if len(documents) > _FEW:
            # The list is copied, and not what is in it: so that goes with the last of both.
            self._waiting.append(list(documents))
            self._wake.set()

    async def run(self) -> None:
        """Free them, when there are any; never returns."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            while self._waiting:
                documents = self._waiting[0]
                while documents:
                    del documents[-_SLICE:]
                    await give_way()
                self._waiting.popleft()
