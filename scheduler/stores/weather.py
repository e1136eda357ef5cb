"""Whether commits go through: what the builds of a process do while they don't is to wait."""

from collections.abc import Callable

import structlog
import trio

from scheduler.errors import LogMissing

_log = structlog.get_logger(__name__)

_SOON = 2.0
"""Seconds of trouble that are worth a line: less is a server's leader that changes, or a slow disk."""


class Weather:
    """Notes when commits begin to fail and when they work again, and says so.

    Args:
        grace: seconds of trouble after which it is said loudly, and again each time that it has doubled.
    """

    def __init__(self, grace: float) -> None:
        self.grace = grace
        self.lost = trio.Event()
        """Set when the log of all builds is gone."""
        self.on_cleared: Callable[[float], None] = lambda _: None
        """Is told of the seconds of trouble when it is over."""
        self._error: LogMissing | None = None
        self._since: float | None = None
        self._said = False
        self._reason = ""
        self._louder = grace

    @property
    def fine(self) -> bool:
        """Whether commits go through, as far as is known."""
        return self._since is None

    @property
    def seconds(self) -> float:
        """For how long they have not."""
        return 0.0 if self._since is None else trio.current_time() - self._since

    def good(self) -> None:
        """A commit went through."""
        if self._since is None:
            return
        seconds = self.seconds
        self._since = None
        if self._said:
            _log.warning("commits go through again: builds go on", seconds=round(seconds, 1))
        self._said = False
        self.on_cleared(seconds)

    def bad(self, reason: str) -> None:
        """A commit did not go through, and is tried again."""
        if self._since is None:
            self._since = trio.current_time()
            self._louder = self.grace
        self._reason = reason
        if not self._said and self.seconds >= _SOON:
            self._said = True
            _log.warning("builds are suspended: nothing can be committed", reason=reason[:1_000])

    def missing(self, error: LogMissing) -> None:
        """The log of all builds is gone: there is nothing to wait for."""
        self._error = error
        self.lost.set()

    async def watch(self) -> None:
        """Speak up when trouble lasts; returns only by raising.

        Raises:
            LogMissing: the log is gone.
        """
        while True:
            with trio.move_on_after(1.0):
                await self.lost.wait()
            if self._error is not None:
                raise self._error
            if self.seconds >= self._louder:
                _log.error(
                    "builds have been suspended for long: nothing is lost, and nothing goes on until commits "
                    "go through; look after the broker",
                    seconds=round(self.seconds),
                    reason=self._reason[:1_000],
                )
                self._louder *= 2
