"""The connections between the processes of a simulated world and its broker.

A connection has a lane in each direction, in which messages keep their order and take their time. It can be
cut (some of what is under way arrives, the rest is lost), or go silent for a while; what was written to it
may then still arrive long after its client has given it up.
"""

import math
from collections import deque
from collections.abc import Callable
from contextvars import Token
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import trio
from support.fake_bus import _parse

from scheduler.bus import Handler
from scheduler.bus.endpoint import Endpoint
from scheduler.bus.outbox import Barrier

if TYPE_CHECKING:
    from simulation.world import Broker, World

MAX_PAYLOAD = 1024 * 1024
_FIRST_DELAY = 0.25
_LAST_DELAY = 5.0
_UNNOTICED = 15.0
"""Seconds for which a connection may bring nothing any more before it is given up."""

Item: TypeAlias = Any
"""Message that travels in a lane."""


class Lane:
    """One direction of a connection: in order, and never at two equal times."""

    def __init__(self, world: "World", arrive: Callable[[Item], object]) -> None:
        self._world = world
        self._arrive = arrive
        self._queue: deque[tuple[float, Item]] = deque()
        self._last = 0.0
        self.stalled = False
        self._closed = False

    def send(self, item: Item, seconds: float = 0.0) -> None:
        """Put something in, which takes so much longer; nothing comes of it once the lane is closed."""
        if not self._closed:
            self._put(item, seconds + self._world.latency())

    def _put(self, item: Item, latency: float) -> None:
        self._last = max(self._last + 1e-6 * self._world.rng.random(), trio.current_time() + latency)
        self._queue.append((self._last, item))
        self._world.later.at(self._last, self._look)

    def _look(self) -> None:
        now = trio.current_time()
        while self._queue and not self.stalled and self._queue[0][0] <= now:
            self._arrive(self._queue.popleft()[1])

    def resume(self) -> None:
        """Go on after a stall."""
        self.stalled = False
        self._world.later.after(self._world.latency(), self._look)

    def close(self, keep: int = 0, delay: float = 0.0) -> None:
        """Take nothing more; of what is under way the first ``keep`` still arrive, so much later. Once."""
        if self._closed:
            return
        self._closed = True
        self.stalled = False
        under_way = [item for _, item in self._queue][:keep]
        self._queue.clear()
        self._last += delay
        for item in under_way:
            self._put(item, delay)

    def __len__(self) -> int:
        return len(self._queue)


class Link:
    """One connection, from its handshake until both ends have given it up."""

    def __init__(self, broker: "Broker", bus: "SimBus", server: int) -> None:
        self.bus = bus
        self.server = server
        """Which server of the cluster it goes to."""
        self.up = Lane(broker.world, lambda item: broker.receive(self, item))
        self.down = Lane(broker.world, lambda item: bus.receive(self, item))
        self.interests: dict[int, tuple[str, str]] = {}
        """By subscription id: the pattern and the queue group."""


class SimBus(Endpoint):
    """The Bus of one process, over simulated connections to the broker."""

    def __init__(self, world: "World", name: str, enter: Callable[[], Token[Any]] | None = None) -> None:
        super().__init__(f"_INBOX.{name}", MAX_PAYLOAD)
        self.name = name
        self.dead = False
        """Whether the process is gone: none of its messages leaves any more."""
        self.link: Link | None = None
        self._world = world
        self._enter = enter
        """Says whose code runs from now on, where that is to be known."""
        self._greeted = False
        self._known: set[int] = set()
        self._asked: dict[Barrier, None] = {}
        self._delay = _FIRST_DELAY
        self.server: int | None = None
        """The server of the cluster that it is, or was last, connected to."""
        self.avoided: Callable[[], int | None] = lambda: None
        """Gives a server that is not to be taken while there is another one."""
        self.cut_from: frozenset[int] = frozenset()
        """Servers that it does not reach."""
        self.frozen = False
        """Whether its process stands still."""
        self._missed: Link | None = None
        """Connection that broke meanwhile."""
        self.lost_at = -math.inf
        self._came_up = trio.Event()
        self._pumping = False
        self.outbox.on_work = self._work

    @property
    def connected(self) -> bool:
        return self._greeted

    @property
    def clustered(self) -> bool:
        """As in the port."""
        return self._world.broker.size > 1

    @property
    def behind(self) -> bool:
        """As in the port."""
        return False

    async def connect(self) -> None:
        """Connect, however long it takes."""
        self._connect()
        await self._came_up.wait()

    def _connect(self) -> None:
        broker = self._world.broker
        if self.dead or self.frozen or self.link is not None:
            return
        server = self._choose([server for server in broker.servers() if server not in self.cut_from])
        if server is None:
            pause = self._world.rng.uniform(0, self._delay)
            self._delay = min(2 * self._delay, _LAST_DELAY)
            broker.when_up(lambda: self._world.later.after(pause, self._connect))
            return
        self.server = server
        link = self.link = Link(broker, self, server)
        broker.accept(link)
        self._known = set(self.interests)
        for interest in self.interests.values():
            link.up.send(("SUB", interest.sid, interest.subject, interest.queue))
        link.up.send(("PING", None))

    def _choose(self, servers: list[int]) -> int | None:
        """One of the servers that are there, by preference another one than the last."""
        avoided = self.avoided()
        liked = [server for server in servers if server not in {avoided, self.server}]
        servers = liked or [server for server in servers if server != avoided] or servers
        if len(servers) < 2:
            return servers[0] if servers else None
        return self._world.rng.choice(servers)

    def _established(self) -> None:
        now = self.interests
        commands = [one.line for sid, one in now.items() if sid not in self._known]
        commands += [b"UNSUB %d\r\n" % sid for sid in self._known if sid not in now]
        self.outbox.restart(commands, list(self._asked))
        self._asked.clear()
        self._greeted = True
        self._delay = _FIRST_DELAY
        self.generation += 1
        self._world.trace.add("connected", self.name, detail=self.generation)
        self._came_up.set()
        self.tell_connected()
        self._work()

    def drop_buffered(self, reason: str) -> None:
        """As in the port: nothing is ever buffered in the process; what has left is under way."""

    def lose(self, link: Link) -> None:
        """The client notices that its connection is gone, and makes another one."""
        if link is not self.link:
            return
        if self.frozen:
            self._missed = link
            return
        link.up.close()
        link.down.close()
        if self._greeted:
            self._world.trace.add("lost", self.name, detail=self.generation)
        self.link = None
        self._greeted = False
        self.lost_at = trio.current_time()
        self._world.later.after(self._world.rng.uniform(0.0, 2 * self._delay), self._connect)

    def reach(self) -> None:
        """Reach all servers again."""
        self.cut_from = frozenset()
        self._world.later.after(self._world.rng.uniform(0.0, self._delay), self._connect)

    def freeze(self) -> None:
        """Its process stands still: what comes in waits, and nothing leaves that has not left."""
        self.frozen = True
        if self.link is not None:
            self.link.down.stalled = True

    def thaw(self) -> None:
        """Its process goes on, and its connection may be faster than anything else there."""
        self.frozen = False
        missed, self._missed = self._missed, None
        if self._world.rng.random() < 0.5:
            self._pump()
        else:
            self._work()
        if missed is not None:
            self.lose(missed)
        elif self.link is not None:
            self.link.down.resume()
        else:
            self._connect()

    def die(self, keep: int) -> None:
        """The process is killed: of what it has written ``keep`` messages still arrive, and nothing else."""
        self.dead = True
        self._greeted = False
        link, self.link = self.link, None
        if link is not None:
            link.down.close()
            link.up.close(keep)
            # The system closes its sockets; the broker reads what was in them first.
            self._world.later.after(0.05, lambda: self._world.broker.forget(link))
        for barrier in self._asked:
            barrier.event.set()
        self.close()

    def receive(self, link: Link, item: Item) -> None:
        """Something arrives from the broker."""
        if link is not self.link:
            return
        kind, payload = item
        if kind == "PONG":
            if payload is None:
                self._established()
            else:
                self._asked.pop(payload, None)
                payload.event.set()
            return
        handler = self.handlers.get(kind)
        if handler is not None:
            self._world.delivered(self.name, payload)
            token = self._enter() if self._enter is not None else None
            handler(payload)
            if token is not None:
                token.var.reset(token)

    def _work(self) -> None:
        if self._greeted and not self._pumping:
            self._pumping = True
            self._world.later.after(0.0, self._pump)

    def _pump(self) -> None:
        self._pumping = False
        link = self.link
        if link is None or not self._greeted or self.frozen:
            return
        while (command := self.outbox.take_command()) is not None:
            if isinstance(command, Barrier):
                self._ask(link, command)
            else:
                word, *rest = command.decode().split()
                sid = int(rest[-1])
                if word == "UNSUB":
                    link.up.send(("UNSUB", sid))
                else:
                    link.up.send(("SUB", sid, rest[0], rest[1] if len(rest) == 3 else ""))
        self._guard()
        if link is not self.link:
            return
        # Whoever is killed in the middle of it writes no more, or is stopped.
        while not (self.dead or self.frozen) and (item := self.outbox.take()) is not None:
            if isinstance(item, Barrier):
                self._ask(link, item)
            else:
                message = _parse(item)
                self._world.left(self.name, message)
                link.up.send(("PUB", message))

    def _guard(self) -> None:
        """Let the process have a last look before messages leave."""
        token = self._enter() if self._enter is not None else None
        self.outbox.checked()
        if token is not None:
            token.var.reset(token)

    def _ask(self, link: Link, barrier: Barrier) -> None:
        self._asked[barrier] = None
        link.up.send(("PING", barrier))


class SimListener(SimBus):
    """The second connection of a process, to another server than the first one's; only where there is one."""

    def __init__(self, first: SimBus, world: "World", enter: Callable[[], Token[Any]]) -> None:
        super().__init__(world, f"{first.name}-listener", enter)
        self._first = first
        self._since = math.inf
        self._was_there = False
        self._same_server = True
        self._first_server = first.server
        first.avoided = lambda: self.server if self.connected else None
        first.on_connected(self._on_first_connected)

    def begin(self) -> None:
        """Connect, where there is more than one server."""
        self._first_server = self._first.server
        if self._world.broker.size > 1:
            self._connect()

    def listen(self, subject: str, handler: Handler) -> Callable[[], None]:
        """As in the port."""
        interest = self._begin(subject, "", handler)
        if self.connected:
            self.outbox.command(interest.line)
        return partial(self.end, interest)

    def missed(self, *, captured: bool) -> bool:
        """As in the port."""
        return not self._was_there and not (captured and self._same_server)

    def _choose(self, servers: list[int]) -> int | None:
        theirs = self._first.server if self._first.link is not None else None
        return super()._choose([server for server in servers if server != theirs])

    def _established(self) -> None:
        self._since = trio.current_time()
        super()._established()

    def _on_first_connected(self) -> None:
        first = self._first
        self._was_there = self.connected and self._since <= first.lost_at - _UNNOTICED
        self._same_server = first.server == self._first_server
        self._first_server = first.server
        if self.link is not None and self.server == first.server:
            self.lose(self.link)
