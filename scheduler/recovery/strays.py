"""Strays: replies for builds that this process does not hold, kept while the store is asked about these."""

from collections import deque
from collections.abc import Iterable

import trio

from scheduler.dispatch.router import Stray
from scheduler.supervision.roster import Roster

_ASK_AGAIN_AFTER = 10.0
"""Seconds for which the store's answer that it has no such build is remembered."""
_MOST_UNKNOWN = 10_000
_MOST_STRAYS = 1_000
"""Most replies kept for one build while the store is asked about it."""
_MOST_BYTES = 64 * 1024 * 1024
"""Largest size of all replies kept meanwhile, in bytes."""
_MOST_ASKED = 1_000
"""Most builds that the store is asked about at a time because of replies."""


class Strays:
    """Strays that are kept, by the build that the store is asked about.

    Args:
        roster: roster of the builds that are held here.
    """

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._kept: dict[str, deque[Stray]] = {}
        self._bytes = 0
        self._unknown: dict[str, float] = {}
        """Time until which a build is not asked about again (Trio's clock, seconds), by id."""
        self._to_ask: list[str] = []
        self._wake = trio.Event()

    def take(self, stray: Stray) -> bool:
        """Keep a reply that no call waits for; returns whether it is kept. Synchronous."""
        build, size = stray.build, len(stray.message.data)
        kept = self._kept.get(build, ())
        if len(kept) >= _MOST_STRAYS or self._bytes + size > _MOST_BYTES:
            return False
        if build not in self._kept:
            if not self._is_worth_asking(build):
                return False
            self.begin(build)
            self._to_ask.append(build)
            self._wake.set()
        self._kept[build].append(stray)
        self._bytes += size
        return True

    def _is_worth_asking(self, build: str) -> bool:
        if self._roster.holds(build) or self._roster.has_reported(build) or len(self._kept) >= _MOST_ASKED:
            return False
        return self._unknown.get(build, -1.0) <= trio.current_time()

    async def to_ask(self) -> Iterable[str]:
        """Wait until there are builds to ask about; replies for each are kept until `end`."""
        await self._wake.wait()
        self._wake = trio.Event()
        builds, self._to_ask = self._to_ask, []
        return builds

    def begin(self, build: str) -> bool:
        """Keep replies for a build from now on; False where they are kept already, or it is held here."""
        if build in self._kept or self._roster.holds(build):
            return False
        self._kept[build] = deque()
        return True

    def keeps(self, build: str) -> bool:
        """Whether replies are kept for a build."""
        return build in self._kept

    def components(self, build: str) -> set[str]:
        """Return the components that replies were kept for."""
        return {stray.component for stray in self._kept[build]}

    def end(self, build: str) -> Iterable[Stray]:
        """Stop keeping replies for a build; returns those that were kept."""
        strays = self._kept.pop(build)
        self._bytes -= sum(len(stray.message.data) for stray in strays)
        return strays

    def forget(self) -> None:
        """Forget all that is kept; only while nothing is asked about. Synchronous.

        Another process deals with it. Kept on, it could be taken for the reply to a later attempt.
        """
        self._kept.clear()
        self._to_ask.clear()
        self._bytes = 0

    def remember_unknown(self, build: str) -> None:
        """Do not ask about a build again for a while."""
        now = trio.current_time()
        if len(self._unknown) >= _MOST_UNKNOWN:
            self._unknown = {name: until for name, until in self._unknown.items() if until > now}
        if len(self._unknown) < _MOST_UNKNOWN:
            self._unknown[build] = now + _ASK_AGAIN_AFTER
