"""Sends requests to a connector and hears what it says, on a bus."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio
from attrs import define, field, frozen

from scheduler.bus import Bus, Message, Subscription
from scheduler.contract.request import Request, Requests
from scheduler.errors import BusError, InvalidJSON
from scheduler.plan.outcome import read_head

_SUFFIXES: Final = ("done", "error")
_REPLIES: Final = 20
_BEATS: Final = 10_000
"""Replies and heartbeats of one request that are kept."""
_LONGEST_BEAT: Final = 4_096
"""Bytes of a heartbeat that are kept: more than it may have."""
_PATIENCE: Final = 5.0
"""Seconds for the broker to know of the subscriptions."""


@frozen
class Heard:
    """Message of a connector."""

    at: float
    """Time by Trio's clock, in seconds."""
    data: bytes = field(repr=False)
    suffix: str | None = None
    """``done`` or ``error`` where a reply came on the shared subject; None on the reply subject."""


@define(eq=False)
class Exchange:
    """Request that was sent, with all that came back."""

    request: Request
    sent: float
    """Time when it was sent last, by Trio's clock, in seconds."""
    replies: list[Heard] = field(factory=list)
    beats: list[Heard] = field(factory=list)
    unheard: bool = False
    """Whether the broker said that nobody subscribes."""
    news: trio.Event = field(factory=trio.Event)

    def note_reply(self, heard: Heard) -> None:
        """Keep a reply."""
        if len(self.replies) < _REPLIES:
            self.replies.append(heard)
        self.wake()

    def note_beat(self, heard: Heard) -> None:
        """Keep a heartbeat; of more than are kept the last one."""
        if len(self.beats) == _BEATS:
            self.beats.pop()
        self.beats.append(heard)
        self.wake()

    def wake(self) -> None:
        """Wake those who wait for news."""
        self.news.set()
        self.news = trio.Event()

    async def until(self, seen: Callable[[], bool], deadline: float) -> bool:
        """Wait until something is seen, at most to a time by Trio's clock; return whether it was."""
        with trio.move_on_at(deadline):
            while not seen():
                await self.news.wait()
        return seen()

    async def answer(self, within: float) -> Heard | None:
        """Return the first reply, if one comes within so many seconds from sending."""
        await self.until(lambda: bool(self.replies) or self.unheard, self.sent + within)
        return self.replies[0] if self.replies else None


class Probe:
    """Asks one connector; see `open_probe`.

    Args:
        bus: connection for requests and replies.
        requests: requests of this check.
    """

    def __init__(self, bus: Bus, requests: Requests) -> None:
        self.requests = requests
        self._bus = bus
        self._by_subject: dict[str, Exchange] = {}
        """Exchanges by reply subject, and by subject of heartbeats."""
        self._by_component: dict[str, Exchange] = {}
        """Latest exchange of each component."""

    def ask(self, request: Request) -> Exchange:
        """Send a request.

        Raises:
            BusError: it cannot be published.
        """
        exchange = Exchange(request, trio.current_time())
        self._by_subject[request.reply] = self._by_subject[request.beat] = exchange
        self._by_component[request.component] = exchange
        self._publish(request)
        return exchange

    def ask_again(self, exchange: Exchange) -> None:
        """Send the same attempt again, as after a lost connection; what came before is put aside.

        Raises:
            BusError: it cannot be published.
        """
        exchange.replies.clear()
        exchange.sent = trio.current_time()
        self._by_component[exchange.request.component] = exchange
        self._publish(exchange.request)

    def give_up(self, exchange: Exchange, reason: str) -> None:
        """Tell all connectors of the subject that an attempt is given up.

        Raises:
            BusError: it cannot be published.
        """
        self._bus.publish(exchange.request.target.cancels, exchange.request.given_up(reason))

    def _publish(self, request: Request) -> None:
        self._bus.publish(request.target.subject, request.body, reply=request.reply, headers=request.headers)

    def hear(self, message: Message) -> None:
        """Take what comes to a request's own subjects; called back by the bus."""
        exchange = self._by_subject.get(message.subject)
        if exchange is None:
            return
        if message.no_responders:
            exchange.unheard = True
            exchange.wake()
        else:
            exchange.note_reply(Heard(trio.current_time(), message.data))

    def hear_beat(self, message: Message) -> None:
        """Take what comes to the subject of a request's heartbeats; called back by the bus."""
        exchange = self._by_subject.get(message.subject)
        if exchange is not None:
            exchange.note_beat(Heard(trio.current_time(), message.data[:_LONGEST_BEAT]))

    def hear_shared(self, message: Message) -> None:
        """Take a reply on the subject that all builds share; called back by the bus."""
        try:
            head = read_head(message.data)
        except InvalidJSON:
            return
        if head is not None and head[0] == self.requests.build and head[1] in self._by_component:
            exchange = self._by_component[head[1]]
            suffix = message.subject.rpartition(".")[2]
            exchange.note_reply(Heard(trio.current_time(), message.data, suffix))


@asynccontextmanager
async def open_probe(bus: Bus, requests: Requests) -> AsyncIterator[Probe]:
    """Open a probe that hears all replies and heartbeats from now on.

    Raises:
        NotPermitted: the broker does not let us hear them.
        BusError: the bus cannot be used.
    """
    probe = Probe(bus, requests)
    handlers = {requests.replies: probe.hear, requests.beats: probe.hear_beat}
    for suffix in _SUFFIXES:
        handlers[f"{requests.target.subject}.{suffix}"] = probe.hear_shared
    subscriptions: list[Subscription] = []
    try:
        with trio.move_on_after(_PATIENCE) as patience:
            for subject, handler in handlers.items():
                subscriptions.append(await bus.subscribe(subject, handler))
        if patience.cancelled_caught:
            raise BusError("the broker did not confirm a subscription in time")
        yield probe
    finally:
        with trio.move_on_after(1, shield=True):
            for subscription in subscriptions:
                await subscription.unsubscribe()
