"""Reply positions: how far the captured replies have been handled, for each build.

The log of a build keeps a position in the streams of replies: every reply up to it is in the log, or belongs
to another build. A reply that was handed to a component and whose outcome is not in the log's queue yet
*holds* the position of its build. There is one stream, or beside it one for each of some providers; a
provider names its stream, and an empty text that of all the others.
"""

from collections.abc import Iterable

from scheduler.journal.records import Position


class ReplyPositions:
    """Positions of the builds of one process. Pure bookkeeping."""

    def __init__(self) -> None:
        self.seen = Position()
        """Position of the last replies that were read, for whichever build."""
        self._held: dict[str, dict[tuple[str, int], Position]] = {}
        self._behind: dict[str, Position] = {}
        self._frozen: dict[str, Position] = {}

    def position(self, build: str) -> Position:
        """Return the position up to which every reply for ``build`` has been handled."""
        stuck = self._frozen.get(build) or self._behind.get(build)
        if stuck is not None:
            return stuck
        held = self._held.get(build)
        if not held:
            return self.seen
        if not self.seen.others:
            return held[min(held)]
        position = self.seen
        for provider in dict.fromkeys(provider for provider, _ in held):
            first = min(sequence for stream, sequence in held if stream == provider)
            position = position.moved(provider, held[provider, first])
        return position

    def see(self, place: Position, provider: str = "") -> None:
        """Note that the reply at ``place`` was read, in the stream of ``provider``."""
        # Most have one stream.
        self.seen = self.seen.moved(provider, place) if provider or self.seen.others else place

    def hold(self, build: str, sequence: int, before: Position, provider: str = "") -> None:
        """Note that the reply at ``sequence``, the next after ``before``, waits to be handled."""
        self._held.setdefault(build, {})[provider, sequence] = before

    def release(self, build: str, sequence: int, provider: str = "") -> None:
        """Note that a reply was handled. Idempotent."""
        held = self._held.get(build)
        if held is not None:
            held.pop((provider, sequence), None)
            if not held:
                del self._held[build]

    def keep_behind(self, build: str, position: Position) -> None:
        """Keep a build at ``position``, where it was taken up: replies since are still to be read."""
        self._behind[build] = position

    def freeze(self, build: str) -> None:
        """Keep a build where it stands: this process does not handle replies that come from now on."""
        self._frozen.setdefault(build, self.position(build))

    def forget(self, build: str) -> None:
        """Forget a build that this process does not hold any more. Idempotent."""
        self._behind.pop(build, None)
        self._frozen.pop(build, None)
        self._held.pop(build, None)

    def catch_up(self, builds: Iterable[str]) -> None:
        """Note that builds which were behind have caught up."""
        for build in builds:
            self._behind.pop(build, None)
