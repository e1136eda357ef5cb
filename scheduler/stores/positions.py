"""How far the captured replies have been dealt with, for each build.

The log of a build keeps a position in the streams of replies: every reply up to it is in the log, or is none
of this build's. A reply that was handed to a component and whose outcome is not in the log's queue yet
*holds* the position of its build. There is one stream, or beside it one for each of some providers; a
provider names its stream, and an empty text that of all the others.
"""

from collections.abc import Iterable

from scheduler.journal.records import Position


class ReplyPositions:
    """The position of every build, in one process. Pure bookkeeping."""

    def __init__(self) -> None:
        self.seen = Position()
        """The last replies that were looked at, whoever they were for."""
        self._held: dict[str, dict[tuple[str, int], Position]] = {}
        self._behind: dict[str, Position] = {}
        self._frozen: dict[str, Position] = {}

    def position(self, build: str) -> Position:
        """Up to where every reply for ``build`` has been dealt with."""
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
        """The reply at ``place`` was looked at, in the stream of ``provider``."""
        self.seen = self.seen.moved(provider, place)

    def hold(self, build: str, sequence: int, before: Position, provider: str = "") -> None:
        """The reply at ``sequence``, the next after ``before``, waits to be dealt with."""
        self._held.setdefault(build, {})[provider, sequence] = before

    def release(self, build: str, sequence: int, provider: str = "") -> None:
        """It was dealt with. Idempotent."""
        held = self._held.get(build)
        if held is not None:
            held.pop((provider, sequence), None)
            if not held:
                del self._held[build]

    def keep_behind(self, build: str, position: Position) -> None:
        """The build was taken up where it stood at ``position``: what came since is still to be read."""
        self._behind[build] = position

    def freeze(self, build: str) -> None:
        """What comes from now on is not dealt with by this process."""
        self._frozen.setdefault(build, self.position(build))

    def forget(self, build: str) -> None:
        """The build is not held by this process any more. Idempotent."""
        self._behind.pop(build, None)
        self._frozen.pop(build, None)
        self._held.pop(build, None)

    def catch_up(self, builds: Iterable[str]) -> None:
        """What had come in meanwhile for builds that were behind was read."""
        for build in builds:
            self._behind.pop(build, None)
