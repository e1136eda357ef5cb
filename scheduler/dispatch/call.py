"""One attempt: a request that goes out, and the wait for its reply.

Of a request there may be several copies: one that is published again because nobody received it, because it
may have been lost with a connection, or because an earlier process may or may not have sent it. All of them
carry the same attempt id. That a request was *withdrawn*, or that *no connector is there*, may only be said
where no copy can be in anybody's hands.
"""

import random
from collections.abc import Callable, Hashable
from enum import Enum
from typing import Final, Protocol

import trio
from attrs import evolve, frozen

from scheduler.bus import Bus, Outgoing
from scheduler.definition.subjects import attempt_header
from scheduler.dispatch.fairness import FairDispatcher
from scheduler.dispatch.timers import Timer, Timers
from scheduler.errors import BusError
from scheduler.journal.records import Position
from scheduler.plan import Request
from scheduler.plan.outcome import Outcome, failure

MAYBE_MISSED: Final = "it may have been answered while the broker was away"
MAYBE_UNCAPTURED: Final = "it may have been answered while no scheduler ran: replies to it are not captured"
KEY: Final = "Scheduler-Component-Key"
"""The header that is the same over all attempts of a component."""
FIRST_PAUSE: Final = 0.05
"""Seconds until a request that nobody received goes out again, the first time; then longer."""
_LAST_PAUSE = 2.0
_BEGINNING = Position()


class Signal(Enum):
    """What can reach a waiter beside an outcome."""

    NOBODY = "nobody subscribes to the subject"
    WITHDRAWN = "the request never left"
    LEFT = "we stop waiting; the reply may still come, to another process"


@frozen
class Inherited:
    """What is known of a request that an earlier process has sent."""

    old: str = ""
    """The token of its reply subject, where that is one of a version before these had an owner."""
    heard: tuple[str, ...] = ()
    """What its reply may come in on, as `connector.Connectors.hear` returned it."""


class Exchange(Protocol):
    """What an attempt needs of `connector.Connectors`."""

    bus: Bus
    timers: Timers
    dispatcher: FairDispatcher
    start_timeout: float
    on_expired: "Callable[[Call], None] | None"
    replies: str
    """What the reply subjects of this process begin with, before the provider."""

    def seconds(self, request: Request) -> float:
        """How long an attempt may take."""

    def deaf(self, request: Request) -> int:
        """The last connection of the bus before which a reply to it may have been missed; 0: none."""

    def arm(self, call: "Call", seconds: float | None = None) -> None:
        """Start its clock."""

    def close(self, call: "Call") -> None:
        """Nobody awaits it any more."""

    def count(self, reason: str) -> None:
        """Count what was dropped."""


class Call:
    """One attempt: a request that was handed to the bus, and the wait for its reply.

    Made by `Connectors.send` and `Connectors.expect`; ends with `outcome`, or by `close`.
    """

    __slots__ = (
        "_arrivals",
        "_backing_off",
        "_ended",
        "_exchange",
        "_receive",
        "_send",
        "_wanted",
        "after",
        "answer",
        "by_capture",
        "closed",
        "departing",
        "extended",
        "held",
        "late",
        "look_through",
        "maybe_out",
        "outgoing",
        "reached",
        "reply",
        "request",
        "since",
        "timer",
        "token",
        "uncaptured",
        "unheard",
    )

    def __init__(self, exchange: Exchange, request: Request, token: str) -> None:
        self.request = request
        self.token = token
        self.reply = f"{exchange.replies}{request.provider}.{token}"
        """The subject on which this process hears the reply to it alone."""
        self.timer: Timer | None = None
        self.outgoing: Outgoing | None = None
        """The request as it was last handed to the bus; None where an earlier process did that."""
        self.departing: Callable[[Call], None] | None = None
        """Is told each time that the request is handed to the bus."""
        self.unheard = False
        """Whether the broker said of the last one that nobody received it."""
        self.maybe_out = False
        """Whether somebody may have the request although the last copy of it was not received: it was sent
        before, by this process or an earlier one."""
        self.reached = False
        """Whether it is known that the broker had it; whoever finds out notes it here."""
        self.closed = False
        """Whether nobody awaits it any more."""
        self.answer: Outcome | Signal | None = None
        """Its end, once that is known."""
        self.held: list[tuple[int, str]] = []
        """Where the replies to it stand in the streams that capture them, until it is closed: a sequence, and
        the stream's provider."""
        self.extended = 0.0
        """Seconds that were added to its time."""
        self.by_capture: Hashable | None = None
        """Where its answer was read from the stream, by what the same one is known that is still to come
        directly: the token, or the ids of build and component."""
        self.after = _BEGINNING
        """Captured replies up to here were dealt with by an earlier process."""
        self.late: Callable[[Request, Outcome], None] | None = None
        """Is told of what arrives after the attempt was given up."""
        self.uncaptured = False
        """Whether an earlier process sent it, and nothing keeps the replies that come while none is there."""
        self.look_through: Callable[[Request, Outcome], Outcome] | None = None
        """What takes long about a large reply, for a thread: it returns the outcome as it is to be kept."""
        self.since = 0
        """The connection of the bus when it was registered."""
        self._arrivals: list[Call] | None = None
        self._exchange = exchange
        # One place is enough: after what ends the attempt nothing is put in any more.
        self._send, self._receive = trio.open_memory_channel[Outcome | Signal](1)
        self._ended = False
        self._wanted = True
        self._backing_off = False

    def tell(
        self,
        arrivals: "list[Call]",
        look_through: Callable[[Request, Outcome], Outcome] | None = None,
    ) -> None:
        """Have the call put there when its end is known; of several in the order in which that happens.

        Args:
            arrivals: where it is put.
            look_through: is given a large reply first, in a thread.
        """
        self._arrivals = arrivals
        self.look_through = look_through
        if self._ended:
            arrivals.append(self)

    async def outcome(self) -> Outcome | Signal:
        """Await the end of the attempt.

        A request that nobody listens to is published again with growing pauses, under the same attempt
        id, until ``start_timeout`` has passed: nobody can have received it.

        Returns:
            The outcome; or `Signal.WITHDRAWN`: nobody received the request, and nobody will; or
            `Signal.LEFT`, after `leave`.
        """
        unheard_since: float | None = None
        generation = -1
        pause = FIRST_PAUSE
        while True:
            answer = await self._receive.receive()
            if answer is not Signal.NOBODY:
                return answer
            if not self._wanted and not self.maybe_out:
                return self._end(Signal.WITHDRAWN)
            if not self._wanted:
                continue
            bus, timers = self._exchange.bus, self._exchange.timers
            # After a broker's restart the connectors are on their way back, too: the time begins again.
            if unheard_since is None or generation != bus.generation:
                unheard_since, generation = timers.now(), bus.generation
                pause = FIRST_PAUSE
            left = unheard_since + self._exchange.start_timeout - timers.now()
            if left <= 0 and not self.maybe_out:
                return self._end(failure(f"no connector is subscribed to {self.request.subject}"))
            self._backing_off = True
            nap = pause * random.uniform(0.75, 1.25)  # noqa: S311
            with trio.move_on_after(nap if self.maybe_out else min(nap, left)):
                answer = await self._receive.receive()
                if answer is not Signal.NOBODY:
                    return answer
            self._backing_off = False
            pause = min(pause * 2, _LAST_PAUSE)
            # What came in the moment in which the pause ended counts: it may say that we are to stop.
            if self._is_to_be_published():
                self.publish()

    def _is_to_be_published(self) -> bool:
        return not self._ended and (self._wanted or not self.maybe_out)

    def publish(self) -> None:
        """Hand the request to the bus; what the bus refuses at once fails the component."""
        request = self.request
        if self.outgoing is not None and self.outgoing.generation and not self.unheard:
            self.maybe_out = True
        self.unheard = False
        try:
            self.outgoing = self._exchange.bus.publish(
                request.subject,
                request.body,
                reply=self.reply,
                headers={"Nats-Msg-Id": attempt_header(request.attempt), KEY: attempt_header(request.key)},
            )
        except BusError as error:
            self.deliver(failure(f"the request cannot be sent: {error}", retryable=False))
        else:
            if self.departing is not None:
                self.departing(self)

    @property
    def unheard_of(self) -> bool:
        """Whether nobody listens to its subject, as far as is known: it goes out again and again."""
        return self._backing_off or self.unheard

    @property
    def answered(self) -> bool:
        """Whether its end is known, whether or not anybody has looked at it yet."""
        return self._ended

    @property
    def lost(self) -> bool:
        """Whether the request was given to a connection that is gone, and has no answer."""
        if self._ended or self._backing_off or self.outgoing is None:
            return False
        return 0 < self.outgoing.generation < self._exchange.bus.generation

    @property
    def expired(self) -> bool:
        """Whether its time is over, and it was not given any since."""
        return self.timer is not None and self.timer.cancelled

    @property
    def maybe_missed(self) -> str:
        """How its reply may have come while nobody here could hear it; empty where it cannot have."""
        outgoing = self.outgoing
        sent = self.since if outgoing is None or self.maybe_out else outgoing.generation
        if 0 < sent < self._exchange.deaf(self.request):
            return MAYBE_MISSED
        return MAYBE_UNCAPTURED if self.uncaptured else ""

    def deliver(self, answer: Outcome | Signal) -> bool:
        """Give the waiter its answer; False where it has one already."""
        if self._ended:
            return False
        if answer is Signal.NOBODY:
            self.unheard = True
        try:
            self._send.send_nowait(answer)
        except trio.WouldBlock:
            # The waiter has not come yet to the word that nobody listens: what ends it outdoes that.
            if answer is Signal.NOBODY:
                return False
            self._receive.receive_nowait()
            self._send.send_nowait(answer)
        except trio.BrokenResourceError:
            return False
        if answer is not Signal.NOBODY:
            self._end(answer)
        return True

    def _end(self, answer: Outcome | Signal) -> Outcome | Signal:
        self._ended = True
        self.answer = answer
        if self._arrivals is not None:
            self._arrivals.append(self)
        return answer

    def withdraw(self) -> None:
        """Take the request back if nobody has it; otherwise its reply is still awaited."""
        self._wanted = False
        if self.maybe_out:
            # One copy less; but somebody may have another one, and its reply is awaited.
            if self.outgoing is not None:
                self.outgoing.withdraw()
        elif self._backing_off or (self.outgoing is not None and self.outgoing.withdraw()):
            self.deliver(Signal.WITHDRAWN)

    def abandon(self) -> None:
        """Stop waiting, and say nothing of how it ended."""
        self.deliver(Signal.LEFT)

    def expire(self) -> None:
        """Its time is over: that is seen to when it is its build's turn, as a reply is."""
        self._exchange.dispatcher.take(self.request.build, self._expire)

    def _expire(self) -> None:
        if self.closed or self._ended or not self.expired:
            # It was answered before its turn came, or was given more time.
            return
        if self.outgoing is not None and self._wanted and not self.maybe_out and self.outgoing.withdraw():
            # It stood in the queue all that time and never left. It has not had its time yet.
            self.publish()
            self._exchange.arm(self)
        elif self._exchange.on_expired is not None:
            self._exchange.on_expired(self)
        else:
            self.time_out()

    def time_out(self) -> None:
        """There is no reply, and its time is over."""
        seconds = self._exchange.seconds(self.request) + self.extended
        text = f"timed out after {seconds:g} s"
        if missed := self.maybe_missed:
            text += f"; {missed}: look whether it was done, then retry or skip it"
        if self.deliver(failure(text)):
            self._exchange.count("timed_out")

    def forget_the_request(self) -> None:
        """Keep only what is needed to know a late reply, and to take it; to be called once it is closed."""
        self.request = evolve(self.request, body=b"")
        self.outgoing = self.timer = self._arrivals = None
        # Two kilobytes; whoever still waits has what he waits for.
        del self._send, self._receive

    def close(self, late: Callable[[Request, Outcome], None] | None = None) -> None:
        """Nobody awaits it any more; with ``late``, what arrives afterwards is told to it."""
        self.late = late
        # It is published no more; and what it tells is its walk, which may have it in a list.
        self.departing = None
        if late is None:
            # Its timer may keep the call for long, and is not to keep the build.
            self.look_through = None
        self._exchange.close(self)
        if not self.closed:
            self.closed = True
            self._receive.close()
