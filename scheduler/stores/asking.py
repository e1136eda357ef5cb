"""Ask a service by request/reply: a few requests at a time, repeated while it is silent, up to a deadline.

Deadlines. The deadline of a request counts from its first sending, and only while the broker is connected: a
broker's restart fails no request. An attempt during which the connection was lost is not counted, and nothing
is sent while it is down. A request that was on its way then is sent again after its own timeout. While the
broker is away, a call therefore waits for as long as its caller lets it. So it is while this process may not
ask at all.

Turns. At most ``at_once`` requests are in flight, first come, first served; the pause before another attempt
does not count as in flight. A request that waits for its turn waits as long as the service answers anything
at all. Once the service has been silent for a deadline, every request that has waited that long fails as
well.
"""

import math
import random
from collections.abc import Callable, Iterator

import structlog
import trio
from attrs import frozen

from scheduler.bus import Bus
from scheduler.errors import BusError, NoResponders, StoreError, StoreUnavailable

SHORTEST = 0.01
"""Seconds of the deadline below which another attempt is not worth it."""

AWAY_INTERVAL = 0.1
"""Seconds between two looks at a connection that is down; at most ``at_once`` tasks look."""

_log = structlog.get_logger(__name__)


@frozen
class Backoff:
    """Delays before the next attempt, in seconds."""

    first: float = 0.1
    factor: float = 2.0
    most: float = 2.0
    jitter: float = 0.5
    """Share of each delay that is random, from 0 to 1, so that builds don't retry in step."""

    def delays(self) -> Iterator[float]:
        """Yield the delays of one request, without end."""
        delay = self.first
        while True:
            yield delay * (1 - self.jitter * random.random())  # noqa: S311 (not a secret)
            delay = min(delay * self.factor, self.most)


DEFAULT_BACKOFF = Backoff()


class _Retry(Exception):
    """An attempt ended without a final result."""

    def __init__(self, outcome: str, reason: str = "") -> None:
        self.outcome = outcome
        self.reason = reason
        super().__init__(f"{outcome}: {reason}" if reason else outcome)

    def text(self, subject: str, seconds: float) -> str:
        """Return the error text for the case that this was the last attempt."""
        text = f"store: {subject} {self.outcome} within {seconds:g} s"
        return f"{text}: {self.reason}" if self.reason else text


class _ConnectedClock:
    """A clock that stands still while the broker is away, or nothing may be asked.

    Each reading advances it. Time between two readings counts only if one and the same connection was up at
    both, so it never counts too much.
    """

    def __init__(self, bus: Bus, may_ask: Callable[[], bool]) -> None:
        self._bus = bus
        self._may_ask = may_ask
        self._total = 0.0
        self._read_at = 0.0
        self._connection: int | None = None

    @property
    def runs(self) -> bool:
        """Whether it runs, as something may be asked now."""
        return self._bus.connected and self._may_ask()

    def read(self) -> float:
        """Return the seconds of connection so far."""
        now = trio.current_time()
        connection = self._bus.generation if self.runs else None
        if connection is not None and connection == self._connection:
            self._total += now - self._read_at
        self._read_at = now
        self._connection = connection
        return self._total


class _Budget:
    """Time left for one request: it runs, on the connected clock, once started."""

    def __init__(self, clock: _ConnectedClock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._started: float | None = None

    def start(self) -> None:
        self._started = self._clock.read()

    def left(self) -> float:
        spent = 0.0 if self._started is None else self._clock.read() - self._started
        return self._seconds - spent


class Asker:
    """Asks requests with the turns and deadlines described in this module."""

    def __init__(
        self,
        bus: Bus,
        may_ask: Callable[[], bool] = lambda: True,
        *,
        timeout: float,
        deadline: float,
        at_once: int,
        backoff: Backoff,
        ask_again: Callable[[bytes], str | None],
    ) -> None:
        """Ask over ``bus``, which remains the caller's to close.

        Args:
            bus: the connection to the broker.
            may_ask: returns whether anything may be asked now.
            timeout: seconds for one attempt, counted from sending it.
            deadline: seconds for one request with all its attempts, counted from the first sending.
            at_once: requests in flight at a time.
            backoff: the delays between attempts.
            ask_again: function that takes an answer, and returns why it calls for another attempt; None for a
                final one.
        """
        self._bus = bus
        self._timeout = timeout
        self._deadline = deadline
        self._backoff = backoff
        self._ask_again = ask_again
        self._slots = trio.CapacityLimiter(at_once)
        self._clock = _ConnectedClock(bus, may_ask)
        # Requests that wait for a slot, with the clock's time at which they began; the longest waiting first.
        self._waiting: dict[trio.CancelScope, float] = {}
        self._answers = 0

    async def ask(
        self, subject: str, data: bytes, *, build: str, failed: Callable[[], None] | None = None
    ) -> bytes:
        """Return the first final answer to a request.

        If this raises or is cancelled, it is unknown whether the service has taken the request.

        Args:
            subject: subject of the request.
            data: its content.
            build: id of the build, for the log.
            failed: function that is called after each attempt without a final answer; None for none.

        Raises:
            StoreUnavailable: there was no final answer within the deadline.
            StoreError: the request cannot be sent.
        """
        budget = _Budget(self._clock, self._deadline)
        delays = self._backoff.delays()
        attempts = answers = 0
        while True:
            # Nothing is counted before the first sending: until then the turn is awaited.
            if await self._slot(budget.left() if attempts else math.inf):
                try:
                    await self._connected()
                    if not attempts:
                        budget.start()
                        answers = self._answers
                    attempts += 1
                    answer = await self._attempt(subject, data, min(self._timeout, budget.left()))
                except _Retry as retry:
                    # Without its traceback, which would keep this very frame alive, and the request in it.
                    failure = retry.with_traceback(None)
                else:
                    if attempts > 1:
                        _log.info("the store answers again", build=build, subject=subject, attempts=attempts)
                    return answer
                finally:
                    # Not after the delay: a request that pauses leaves its slot to another.
                    self._slots.release()
                if failed is not None:
                    failed()
                delay = min(next(delays), max(budget.left(), 0))
                log = _log.warning if attempts == 1 else _log.debug
                log(
                    "the store is asked again", build=build, subject=subject, reason=str(failure), delay=delay
                )
                await trio.sleep(delay)
            elif not attempts:
                raise StoreUnavailable(
                    f"store: {subject} was not sent: nothing was answered within {self._deadline:g} s"
                )
            if budget.left() < SHORTEST:
                if self._answers == answers:
                    self._end_long_waits()
                raise StoreUnavailable(failure.text(subject, self._deadline))

    async def _slot(self, patience: float) -> bool:
        """Wait for a slot; return False after ``patience`` seconds, or once the store is declared silent."""
        # The clock may stand still while this deadline runs: a minimum keeps the caller from spinning.
        with trio.move_on_after(max(patience, AWAY_INTERVAL)) as scope:
            self._waiting[scope] = self._clock.read()
            try:
                await self._slots.acquire()
            finally:
                del self._waiting[scope]
        return not scope.cancelled_caught

    async def _connected(self) -> None:
        """Wait while the broker is away, or nothing may be asked, and keep the clock up to date."""
        self._clock.read()
        while not self._clock.runs:
            await trio.sleep(AWAY_INTERVAL)
            self._clock.read()

    async def _attempt(self, subject: str, data: bytes, seconds: float) -> bytes:
        """Send one request, and return its answer."""
        try:
            with trio.fail_after(max(seconds, SHORTEST)):
                message = await self._bus.request(subject, data)
        except trio.TooSlowError:
            raise _Retry("was not answered") from None
        except NoResponders:
            raise _Retry("was not answered", "nobody is subscribed to it") from None
        except BusError as error:
            raise StoreError(f"store: {subject}: {error}") from error
        finally:
            self._clock.read()
        self._answers += 1
        reason = self._ask_again(message.data)
        if reason is not None:
            raise _Retry("was not carried out", reason)
        return message.data

    def _end_long_waits(self) -> None:
        """End all waits for a slot that took as long as the store has been silent to everything."""
        now = self._clock.read()
        for scope, since in self._waiting.items():
            if now - since < self._deadline - SHORTEST:
                break
            scope.cancel()
