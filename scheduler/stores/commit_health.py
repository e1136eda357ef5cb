"""Whether commits go through: what the builds of a process do while they don't is to wait."""

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

_log = structlog.get_logger(__name__)

_T = TypeVar("_T")
_SOON = 2.0
"""Seconds of trouble that are worth a line: less is a server's leader that changes, or a slow disk."""
_FIRST_PAUSE = 0.05
_LAST_PAUSE = 1.0
SURELY_GONE = 5
"""Looks for a stream, a second apart, after which it is missing and not just late in coming back."""
_REPEAT = 60.0
"""Seconds between two lines about the same refusal."""


class PendingCommit:
    """Somebody who may be in trouble, as a context: leaving it, they are not any more."""

    def __init__(self, health: "CommitHealth") -> None:
        self._health = health

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._health.leave(self)

    def failed(self, reason: str) -> None:
        """What was tried did not work, and is tried again."""
        self._health.enter(self, reason)


class CommitHealth:
    """Notes who is in trouble, and says so when it lasts.

    Args:
        grace: seconds of trouble after which it is said loudly, and again each time that it has doubled.
        connected: whether there is a connection to the broker at all.
    """

    def __init__(self, grace: float, connected: Callable[[], bool] = lambda: True) -> None:
        self.grace = grace
        self._connected = connected
        self._lost = trio.Event()
        self._error: LogMissing | None = None
        self._troubled: set[PendingCommit] = set()
        self._reason = ""

    @property
    def reason(self) -> str:
        """What those say that are in trouble; empty where nobody is."""
        return self._reason if self._troubled else ""

    @property
    def good(self) -> bool:
        """Whether commits go through, as far as is known."""
        return not self._troubled

    def pending(self) -> PendingCommit:
        """Somebody begins with what may not work."""
        return PendingCommit(self)

    def enter(self, trouble: PendingCommit, reason: str) -> None:
        """As `PendingCommit.say`."""
        self._troubled.add(trouble)
        self._reason = reason

    def leave(self, trouble: PendingCommit) -> None:
        """As leaving the context."""
        self._troubled.discard(trouble)

    def missing(self, error: LogMissing) -> None:
        """The log of all builds is gone: there is nothing to wait for."""
        self._error = error
        self._lost.set()

    async def watch(self) -> None:
        """Speak up when trouble lasts; returns only by raising.

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
                    _log.warning("commits go through again: builds go on", seconds=round(now - since, 1))
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
                    "builds have been suspended for long: nothing is lost, and nothing goes on until commits "
                    "go through; look after the broker",
                    seconds=round(now - since),
                    reason=reason,
                )


async def ask_the_log(health: CommitHealth, bus: Bus, ask: Callable[[], Awaitable[_T]]) -> _T:
    """Ask something of the stream of all logs until there is an answer.

    That the stream is gone is told to ``health``, by which the process ends; this does not return then.

    Args:
        health: is told while there is no answer.
        bus: tells of new connections.
        ask: asks once.

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
            # No build is to say anything of its own.
            await trio.sleep_forever()
        await trio.sleep(1.0)


async def patiently(health: CommitHealth, ask: Callable[[], Awaitable[_T]], *answers: type[BusError]) -> _T:
    """Ask JetStream until it answers, however long that takes.

    Args:
        health: is told while it does not.
        ask: asks once.
        answers: errors that are an answer, and are raised.

    Raises:
        BusClosed, MessageTooLarge: what no waiting cures.
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
                # Nothing fails by an account that may not store more, as by a full disk.
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
