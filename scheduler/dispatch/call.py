"""One attempt: the state of a request that goes out, and the wait for its reply.

Of a request there may be several copies: one that is published again because nobody received it, because it
may have been lost with a connection, or because an earlier process may or may not have sent it. All of them
carry the same attempt id. That a request was *withdrawn*, or that *no connector is there*, may only be said
where no copy can be in anybody's hands.

A call ends once: by the first outcome or signal that is delivered. `scheduler.dispatch.sending` publishes
its request, `scheduler.dispatch.router` decides which replies are meant for it.
"""

from collections.abc import Callable
from enum import Enum
from typing import Final, Protocol, TypeAlias

import trio
from msgspec.structs import replace

from scheduler.bus import Outgoing
from scheduler.definition.reply_subjects import ADDRESS
from scheduler.dispatch.channels import Channels
from scheduler.dispatch.inherited import Inherited
from scheduler.dispatch.pulse import Pulse
from scheduler.dispatch.timers import Timer
from scheduler.journal.records import Position
from scheduler.plan import Request
from scheduler.plan.outcome import Outcome

MAYBE_MISSED: Final = "it may have been answered while the broker was away"
MAYBE_UNCAPTURED: Final = "it may have been answered while no scheduler ran: replies to it are not captured"
_BEGINNING = Position()

Copy: TypeAlias = str | tuple[str, str]
"""Address by which a reply is known: of its reply subject, or build and component on a shared one."""


class Signal(Enum):
    """Signal that can reach a waiter in place of an outcome."""

    NOBODY = "nobody subscribes to the subject"
    WITHDRAWN = "the request never left"
    LEFT = "we stop waiting; the reply may still come, to another process"


class Exchange(Protocol):
    """Other end of a call: publishes its request, and forgets the call in the end; see `Sending`."""

    replies: str
    """Prefix of the reply subjects of this process, before the provider."""
    channels: Channels[Outcome | Signal]
    """Channels for answers."""
    pulses: "dict[Call, Pulse]"
    """Pulses of the calls that have had heartbeats, or are asked for them."""

    @property
    def connection(self) -> int:
        """Number of the present connection, `Bus.generation`."""

    def publish(self, call: "Call") -> None:
        """Hand the request to the bus."""

    async def repeat(self, call: "Call") -> Outcome | Signal:
        """Publish a request again that nobody received, until there is an end."""

    def last_gap(self, request: Request) -> int:
        """Return the connection before which a reply to it may have been missed; 0: none was."""

    def time_left(self, call: "Call") -> float | None:
        """Return the seconds until an attempt times out; None where its clock does not run."""

    def time_out(self, call: "Call") -> None:
        """Fail a call whose time has passed."""

    def close(self, call: "Call") -> None:
        """Forget a call that nobody awaits any more."""


class Call:
    """One attempt: a request that was handed to the bus, and the wait for its reply.

    Made by `Connectors.send` and `Connectors.expect`; ends with `outcome`, or by `close`.
    """

    __slots__ = (
        "_arrivals",
        "_channel",
        "_exchange",
        "address",
        "after",
        "answer",
        "backing_off",
        "closed",
        "departing",
        "direct_copy",
        "extended",
        "held",
        "inherited",
        "late",
        "look_through",
        "maybe_out",
        "outgoing",
        "reached",
        "repeated_at",
        "reply",
        "request",
        "since",
        "timer",
        "token",
        "uncaptured",
        "unheard",
        "unsure",
        "wanted",
    )

    def __init__(self, exchange: Exchange, request: Request, token: str, since: int) -> None:
        self.request = request
        self.token = token
        """Last word of its reply subject: secret, and this attempt's alone."""
        self.reply = f"{exchange.replies}{request.provider}.{token}"
        """Subject on which this process hears the reply to it alone."""
        self.address = self.reply[ADDRESS]
        """Part of that subject which is the same under each owner's name."""
        self.since = since
        """Connection of the bus when it was registered."""

        # The request, and its copies.
        self.outgoing: Outgoing | None = None
        """The request as it was last handed to the bus; None where an earlier process did that."""
        self.departing: Callable[[Call], None] | None = None
        """Callback for each time that the request is handed to the bus."""
        self.unheard = False
        """Whether the broker said of the last copy that nobody received it."""
        self.backing_off = False
        """Whether it waits to be published again, since nobody received it."""
        self.unsure = False
        """Whether its build may be another process's by now: before its request goes out again, that is to be
        found out."""
        self.wanted = True
        """Whether it is to be published; false once it was to be withdrawn."""
        self.maybe_out = False
        """Whether somebody may have the request although the last copy of it was not received: it was sent
        before, by this process or an earlier one."""
        self.repeated_at = 0.0
        """When the request was handed to the bus last that somebody may have had before (Trio's clock, s)."""
        self.reached = False
        """Whether it is known that the broker had it; noted by the store that finds out."""

        # Its time.
        self.timer: Timer | None = None
        self.extended = 0.0
        """Seconds that were added to its time."""

        # Its end.
        self.answer: Outcome | Signal | None = None
        """Its end, once that is known."""
        self.closed = False
        """Whether nobody awaits it any more."""
        self.late: Callable[[Request, Outcome], None] | None = None
        """Callback for what arrives after the attempt was given up."""
        self.look_through: Callable[[Request, Outcome], Outcome] | None = None
        """Slow part of taking a large reply, for a thread: returns the outcome as it is to be kept."""
        self._arrivals: list[Call] | None = None
        self._exchange = exchange
        # One place is enough: after what ends the attempt nothing is put in any more.
        self._channel = exchange.channels.take()

        # Replies to it that a stream captured.
        self.after = _BEGINNING
        """Position up to which an earlier process dealt with captured replies."""
        self.held: list[tuple[int, str]] = []
        """Captured replies to it that hold the position of its build until it is closed: the sequence in the
        stream, and the stream's provider."""
        self.direct_copy: Copy | None = None
        """Address of the direct copy that is still to come, where its answer was a captured reply."""
        self.uncaptured = False
        """Whether an earlier process sent it, and nothing keeps the replies that come while none is there."""
        self.inherited: Inherited | None = None
        """Further ways for its reply, where an earlier process sent it."""

    def tell(
        self,
        arrivals: "list[Call]",
        look_through: Callable[[Request, Outcome], Outcome] | None = None,
    ) -> None:
        """Append the call to ``arrivals`` when its end is known.

        Args:
            arrivals: list of calls, in the order in which their ends became known.
            look_through: called with a large reply first, in a thread.
        """
        self._arrivals = arrivals
        self.look_through = look_through
        if self.answer is not None:
            arrivals.append(self)

    async def outcome(self) -> Outcome | Signal:
        """Await the end of the attempt.

        A request that nobody listens to is published again meanwhile (`Sending.repeat`).

        Returns:
            The outcome; or `Signal.WITHDRAWN`: nobody received the request, and nobody will; or
            `Signal.LEFT`, after `abandon`.
        """
        answer = await self.receive()
        return answer if answer is not Signal.NOBODY else await self._exchange.repeat(self)

    async def receive(self) -> Outcome | Signal:
        """Await what reaches the waiter next: its end, or the word that nobody received the last copy."""
        if self.answer is not None:
            # Another task may have booked it, and closed the call.
            return self.answer
        channel = self._channel
        answer = await channel.receive()
        if self.closed:
            # Another task has booked its end before this one ran.
            self._exchange.channels.give_back(channel)
        return answer

    def deliver(self, answer: Outcome | Signal) -> bool:
        """Give the waiter its answer; return False where it has one already."""
        if self.answer is not None:
            return False
        if answer is Signal.NOBODY:
            self.unheard = True
        if self.closed:
            # Its channel may belong to another call by now.
            return False
        try:
            self._channel.put(answer)
        except trio.WouldBlock:
            # The waiter has not read the word that nobody listens; the end replaces it.
            if answer is Signal.NOBODY:
                return False
            self._channel.replace(answer)
        if answer is not Signal.NOBODY:
            self.answer = answer
            if self._arrivals is not None:
                self._arrivals.append(self)
        return True

    def end(self, answer: Outcome | Signal) -> None:
        """Note the end, for a waiter that knows of it; `deliver` is for all others."""
        self.answer = answer
        if self._arrivals is not None:
            self._arrivals.append(self)

    def publish(self) -> None:
        """Hand the request to the bus; what the bus refuses at once fails the component."""
        self._exchange.publish(self)

    def withdraw(self) -> None:
        """Take the request back if nobody has it; otherwise its reply is still awaited."""
        self.wanted = False
        if self.maybe_out:
            # One copy less; but a connector may have another one, and its reply is awaited.
            if self.outgoing is not None:
                self.outgoing.withdraw()
        elif self.backing_off or (self.outgoing is not None and self.outgoing.withdraw()):
            self.deliver(Signal.WITHDRAWN)

    def abandon(self) -> None:
        """Stop waiting, and say nothing of how it ended."""
        self.deliver(Signal.LEFT)

    def time_out(self) -> None:
        """Fail the attempt, as its time has passed without a reply."""
        self._exchange.time_out(self)

    @property
    def pulse(self) -> Pulse | None:
        """Pulse, where there was a heartbeat, or one is asked for; else None."""
        return self._exchange.pulses.get(self)

    @property
    def may_have_left(self) -> bool:
        """Whether somebody may have the request."""
        outgoing = self.outgoing
        return self.maybe_out or (outgoing is not None and outgoing.generation > 0 and not self.unheard)

    @property
    def is_queued(self) -> bool:
        """Whether a copy of the request waits in the bus, and leaves as soon as it can."""
        outgoing = self.outgoing
        return outgoing is not None and not (outgoing.generation or outgoing.refused or outgoing.withdrawn)

    @property
    def is_taken_up(self) -> bool:
        """Whether the replies to it so far are known, where an earlier process sent it."""
        return self.timer is not None or self.departing is not None

    @property
    def unheard_of(self) -> bool:
        """Whether nobody listens to its subject, as far as is known: it goes out again and again."""
        return self.backing_off or self.unheard

    @property
    def answered(self) -> bool:
        """Whether its end is known, whether or not anybody has looked at it yet."""
        return self.answer is not None

    @property
    def lost(self) -> bool:
        """Whether the request was given to a connection that is gone, and has no answer."""
        if self.answer is not None or self.backing_off or self.outgoing is None:
            return False
        return 0 < self.outgoing.generation < self._exchange.connection

    @property
    def time_left(self) -> float | None:
        """Seconds until it times out; None where its clock does not run."""
        return self._exchange.time_left(self)

    @property
    def expired(self) -> bool:
        """Whether its time has passed, and it was not given any since."""
        return self.timer is not None and self.timer.cancelled

    @property
    def maybe_missed(self) -> str:
        """Explanation how its reply may have been missed; empty where it cannot have been."""
        outgoing = self.outgoing
        sent = self.since if outgoing is None or self.maybe_out else outgoing.generation
        if 0 < sent < self._exchange.last_gap(self.request):
            return MAYBE_MISSED
        return MAYBE_UNCAPTURED if self.uncaptured else ""

    def close(self, late: Callable[[Request, Outcome], None] | None = None) -> None:
        """Stop awaiting it; with ``late``, that is called with what arrives afterwards. Idempotent."""
        self.late = late
        # It is published no more; and the callback belongs to its walk, which may have the call in a list.
        self.departing = None
        if late is None:
            # Its timer may keep the call for long, and is not to keep the build.
            self.look_through = None
        self._exchange.close(self)
        if not self.closed:
            self.closed = True
            channel = self._channel
            del self._channel
            if not channel.receiving:
                self._exchange.channels.give_back(channel)
            elif self.answer is None:
                # The task that waits is to end.
                channel.close()

    def forget_the_request(self) -> None:
        """Keep only what is needed to know a late reply, and to take it; to be called once it is closed."""
        self.request = replace(self.request, body=b"")
        self.outgoing = self.timer = self._arrivals = None
