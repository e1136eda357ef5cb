"""Commit health: whether commits go through. While they do not, the builds of a process wait."""

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypeVar

import structlog
import trio

from scheduler.bus import Bus
from scheduler.errors import (
    BusClosed,
    BusError,
    JetStreamError,
    JetStreamUnavailable,
    LogMissing,
    MessageTooLarge,
    StreamNotFound,
)
from scheduler.jetstream.codes import Meaning, meaning
from scheduler.jetstream.streams import LOG
from scheduler.metrics.commits import CommitTally

_log = structlog.get_logger(__name__)

_T = TypeVar("_T")
_SOON = 2.0
"""Seconds of trouble worth a log line: less than that is a change of leader, or a slow disk."""
_FIRST_PAUSE = 0.05
_LAST_PAUSE = 1.0
SURELY_GONE = 5
"""Looks for a stream, a second apart, after which it is missing, and not just late in coming back."""
_REPEAT = 60.0
"""Seconds between two log lines about the same refusal."""


class PendingCommit:
    """A commit that may be in trouble, as a context: leaving it ends the trouble."""

    def __init__(self, health: "CommitHealth") -> None:
        self._health = health

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._health.leave(self)

    def failed(self, reason: str) -> None:
        """Note that an attempt failed, and is repeated."""
        self._health.enter(self, reason)


class CommitHealth:
    """Keeps the commits in trouble, and logs trouble that lasts.

    Args:
        grace: seconds of trouble after which it is logged loudly, and again each time that it has doubled.
        connected: function that says whether there is a connection to the broker.
    """

    def __init__(self, grace: float, connected: Callable[[], bool] = lambda: True) -> None:
        self.grace = grace
        self.tally = CommitTally()
        """Tally of what is committed."""
        self._connected = connected
        self._lost = trio.Event()
        self._error: LogMissing | None = None
        self._troubled: set[PendingCommit] = set()
        self._reason = ""

    @property
    def reason(self) -> str:
        """Reason given by the commits in trouble; empty where there are none."""
        return self._reason if self._troubled else ""

    @property
    def good(self) -> bool:
        """Whether commits go through, as far as is known."""
        return not self._troubled

    def pending(self) -> PendingCommit:
        """Return a context for a commit that may not go through."""
        return PendingCommit(self)

    def enter(self, trouble: PendingCommit, reason: str) -> None:
        """Add a commit to those in trouble (see `PendingCommit.failed`)."""
        self._troubled.add(trouble)
        self._reason = reason

    def leave(self, trouble: PendingCommit) -> None:
        """Remove a commit from those in trouble; its context was left."""
        self._troubled.discard(trouble)

    def missing(self, error: LogMissing) -> None:
        """Report that the log of all builds is gone: there is nothing to wait for."""
        self._error = error
        self._lost.set()

    async def watch(self) -> None:
        """Log trouble that lasts; returns only by raising.

        Raises:
            LogMissing: the log is gone.
        """
        since: float | None = None
        said, louder = False, self.grace
        while True:
            with trio.move_on_after(1.0):
                await self._lost.wait()
            if self._error is not None:
                raise self._error
            now = trio.current_time()
            connected = self._connected()
            if connected and self.good:
                if said and since is not None:
                    _log.warning("commits go through again: builds resume", seconds=round(now - since, 1))
                since, said, louder = None, False, self.grace
                continue
            since = now if since is None else since
            reason = self._reason[:1_000] if connected else "there is no connection to the broker"
            if not said and now - since >= _SOON:
                said = True
                _log.warning("builds are suspended: nothing can be committed", reason=reason)
            if now - since >= louder:
                louder *= 2
                _log.error(
                    "builds have been suspended for long: nothing is lost, but nothing continues until "
                    "commits go through; check the broker",
                    seconds=round(now - since),
                    reason=reason,
                )


async def ask_the_log(health: CommitHealth, bus: Bus, ask: Callable[[], Awaitable[_T]]) -> _T:
    """Ask something of the stream of all logs until there is an answer.

    If the stream is gone, this reports it to ``health``, which ends the process, and does not return.

    Args:
        health: takes note of trouble while there is no answer.
        bus: bus that numbers its connections.
        ask: function that asks once.


    Raises:
        BusClosed, MessageTooLarge: as `patiently`.
    """
    looks, generation = 0, bus.generation
    while True:
        try:
            return await patiently(health, ask, StreamNotFound)
        except StreamNotFound:
            # A server that has just started may not know its streams yet.
            looks = looks + 1 if generation == bus.generation else 0
            generation = bus.generation
        if looks >= SURELY_GONE:
            health.missing(LogMissing(f"the stream {LOG} is gone: no build can be accepted or resumed"))
            # The process ends by that error alone; no build adds one of its own.
            await trio.sleep_forever()
        await trio.sleep(1.0)


async def patiently(health: CommitHealth, ask: Callable[[], Awaitable[_T]], *answers: type[BusError]) -> _T:
    """Ask JetStream until it answers, however long that takes.

    Args:
        health: takes note of trouble while there is no answer.
        ask: function that asks once.
        answers: types of errors that count as an answer, and are raised.

    Raises:
        BusClosed, MessageTooLarge: errors that no waiting cures.
    """
    final = (BusClosed, MessageTooLarge, *answers)
    pause = _FIRST_PAUSE
    said = -_REPEAT
    with health.pending() as trouble:
        while True:
            try:
                return await ask()
            except BusError as error:
                if isinstance(error, final):
                    raise
                # An account that may not store more is treated like a full disk: nothing fails by it.
                full = (
                    isinstance(error, JetStreamError)
                    and meaning(error.code, error.err_code, "") is Meaning.FULL
                )
                if full or isinstance(error, JetStreamUnavailable):
                    trouble.failed(str(error))
                elif trio.current_time() - said >= _REPEAT:
                    said = trio.current_time()
                    _log.error(
                        "JetStream refuses what it should not; it is asked again", reason=str(error)[:1_000]
                    )
            await trio.sleep(pause)
            pause = min(2 * pause, _LAST_PAUSE)
