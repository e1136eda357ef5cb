"""The simulated world: a broker with JetStream that outlives its clients, and the connections to it.

A connection has a lane in each direction, in which messages keep their order and take their time. It can be
cut (some of what is under way arrives, the rest is lost), or go silent for a while; what was written to it
may then still arrive long after its client has given it up.
"""

import base64
import json
import random
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import trio
from fake_bus import Published, _parse
from fake_jetstream import FakeJetStream, Kept, Later, Stream

from scheduler.bus import Message
from scheduler.bus.endpoint import Endpoint
from scheduler.bus.outbox import Barrier
from scheduler.bus.subjects import matches
from simulation.trace import Trace

MAX_PAYLOAD = 1024 * 1024
_FIRST_DELAY = 0.25
_LAST_DELAY = 5.0

_READ_BACK = b'{"type": "io.nats.jetstream.api.v1.stream_msg_get_response"'

Item: TypeAlias = Any
"""What travels in a lane."""
Noted: TypeAlias = Callable[[str, Published], None]


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

    def __init__(self, broker: "Broker", bus: "SimBus") -> None:
        self.bus = bus
        self.up = Lane(broker.world, lambda item: broker.receive(self, item))
        self.down = Lane(broker.world, lambda item: bus.receive(self, item))
        self.interests: dict[int, tuple[str, str]] = {}
        """By subscription id: the pattern and the queue group."""


class Broker:
    """Routes messages between connections; its streams are those of a `FakeJetStream`."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.up = True
        self.jetstream = FakeJetStream(self, world.later)
        self.links: dict[Link, None] = {}
        self._returned: list[Callable[[], None]] = []
        self._literal: dict[str, list[tuple[Link, int, str]]] = {}
        self._wild: dict[int, list[tuple[list[str], Link, int, str]]] = {}
        """By the number of tokens, 0 for those that end with ``>``."""
        self._postponed: list[Published] = []
        self.slow_disk = 0.0
        """Seconds that storing a message may take."""
        self._disk = Lane(world, self.jetstream.take)

    def when_up(self, job: Callable[[], None]) -> None:
        """Call ``job`` once when the broker is there again."""
        self._returned.append(job)

    def crash(self) -> None:
        """End at once: all connections break, what was on its way in is lost."""
        self.up = False
        for link in list(self.links):
            link.up.close()
            self.forget(link)
            self.world.later.after(self.world.latency(), partial(link.bus.lose, link))
        self.jetstream.restart()
        self._postponed.clear()
        self._disk = Lane(self.world, self.jetstream.take)

    def restart(self) -> None:
        """Be there again."""
        self.up = True
        returned, self._returned = self._returned, []
        for job in returned:
            job()

    def lose_quorum(self) -> None:
        """Streams take and answer nothing more; everything else goes on."""
        self.jetstream.silent = True

    def regain_quorum(self) -> None:
        """Streams work again; some of what was proposed meanwhile is stored only now."""
        self.jetstream.silent = False
        postponed, self._postponed = self._postponed, []
        for message in postponed:
            self.jetstream.take(message)

    def accept(self, link: Link) -> None:
        """A connection was made."""
        self.links[link] = None

    def forget(self, link: Link) -> None:
        """A connection is over as far as the broker knows."""
        if self.links.pop(link, self) is None:
            for sid in list(link.interests):
                self._unsubscribe(link, sid)

    def receive(self, link: Link, item: Item) -> None:
        """Something arrives on a connection."""
        if not self.up:
            return
        kind, *rest = item
        match kind:
            case "PUB":
                self._publish(link, rest[0])
            case "PING":
                link.down.send(("PONG", *rest))
            case "SUB" if link in self.links:
                self._subscribe(link, *rest)
            case "UNSUB":
                self._unsubscribe(link, *rest)

    def _publish(self, link: Link, message: Published) -> None:
        self.world.arrived(link.bus.name, message)
        if self.jetstream.silent and not message.subject.startswith("$JS.") and self.world.rng.random() < 0.3:
            self._postponed.append(message)
        heard = self._store(message)
        heard = self.route(message.subject, message) or heard
        if not heard and message.reply:
            for sid, (pattern, _) in link.interests.items():
                if matches(pattern, message.reply):
                    link.down.send((sid, Message(message.reply, b"", "", {"Status": "503"})))
                    break
            self.world.unheard(link.bus.name, message)

    def _store(self, message: Published) -> bool:
        """Show a message to the streams, in the order in which they come."""
        takes = (self.slow_disk or len(self._disk)) and not message.subject.startswith("$JS.")
        if takes and any(stream.takes(message.subject) for stream in self.jetstream.streams.values()):
            self._disk.send(message, self.world.rng.uniform(0.0, self.slow_disk))
            return True
        return self.jetstream.take(message)

    def _subscribe(self, link: Link, sid: int, pattern: str, queue: str) -> None:
        link.interests[sid] = (pattern, queue)
        if "*" in pattern or ">" in pattern:
            tokens = pattern.split(".")
            length = 0 if tokens[-1] == ">" else len(tokens)
            self._wild.setdefault(length, []).append((tokens, link, sid, queue))
        else:
            self._literal.setdefault(pattern, []).append((link, sid, queue))

    def _unsubscribe(self, link: Link, sid: int) -> None:
        pattern, queue = link.interests.pop(sid, ("", ""))
        if "*" in pattern or ">" in pattern:
            tokens = pattern.split(".")
            self._wild[0 if tokens[-1] == ">" else len(tokens)].remove((tokens, link, sid, queue))
        elif pattern:
            self._literal[pattern].remove((link, sid, queue))

    def _listeners(self, subject: str) -> list[tuple[Link, int, str]]:
        found = list(self._literal.get(subject, ()))
        got = subject.split(".")
        for tokens, link, sid, queue in self._wild.get(len(got), ()):
            # Not `matches`: this is what a run does most.
            for want, token in zip(tokens, got, strict=True):
                if want not in ("*", token):
                    break
            else:
                found.append((link, sid, queue))
        for tokens, link, sid, queue in self._wild.get(0, ()):
            if matches(".".join(tokens), subject):
                found.append((link, sid, queue))
        return found

    def interested(self, to: str) -> bool:
        """As the streams ask."""
        return bool(self._listeners(to))

    def route(self, to: str, message: Published) -> bool:
        """Send a message to whoever listens, one of each queue group; says whether there was anybody."""
        groups: dict[str, list[tuple[Link, int]]] = {}
        listeners = self._listeners(to)
        shown = Message(message.subject, message.data, message.reply, message.headers)
        for link, sid, queue in listeners:
            if queue:
                groups.setdefault(queue, []).append((link, sid))
            else:
                link.down.send((sid, shown))
        for members in groups.values():
            link, sid = self.world.rng.choice(members)
            link.down.send((sid, shown))
        return bool(listeners)


class SimBus(Endpoint):
    """The Bus of one process, over simulated connections to the broker."""

    def __init__(self, world: "World", name: str) -> None:
        super().__init__(f"_INBOX.{name}", MAX_PAYLOAD)
        self.name = name
        self.dead = False
        """Whether the process is gone: nothing of it leaves any more."""
        self.link: Link | None = None
        self._world = world
        self._greeted = False
        self._known: set[int] = set()
        self._asked: dict[Barrier, None] = {}
        self._delay = _FIRST_DELAY
        self._came_up = trio.Event()
        self._pumping = False
        self.outbox.on_work = self._work

    @property
    def connected(self) -> bool:
        return self._greeted

    async def connect(self) -> None:
        """Connect, however long it takes."""
        self._connect()
        await self._came_up.wait()

    def _connect(self) -> None:
        broker = self._world.broker
        if self.dead or self.link is not None:
            return
        if not broker.up:
            pause = self._world.rng.uniform(0, self._delay)
            self._delay = min(2 * self._delay, _LAST_DELAY)
            broker.when_up(lambda: self._world.later.after(pause, self._connect))
            return
        link = self.link = Link(broker, self)
        broker.accept(link)
        self._known = set(self.interests)
        for interest in self.interests.values():
            link.up.send(("SUB", interest.sid, interest.subject, interest.queue))
        link.up.send(("PING", None))

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

    def lose(self, link: Link) -> None:
        """The client notices that its connection is gone, and makes another one."""
        if link is not self.link:
            return
        link.up.close()
        link.down.close()
        if self._greeted:
            self._world.trace.add("lost", self.name, detail=self.generation)
        self.link = None
        self._greeted = False
        self._world.later.after(self._world.rng.uniform(0.0, 2 * self._delay), self._connect)

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
            handler(payload)

    def _work(self) -> None:
        if self._greeted and not self._pumping:
            self._pumping = True
            self._world.later.after(0.0, self._pump)

    def _pump(self) -> None:
        self._pumping = False
        link = self.link
        if link is None or not self._greeted:
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
        # Whoever is killed in the middle of it writes no more.
        while not self.dead and (item := self.outbox.take()) is not None:
            if isinstance(item, Barrier):
                self._ask(link, item)
            else:
                message = _parse(item)
                self._world.left(self.name, message)
                link.up.send(("PUB", message))

    def _ask(self, link: Link, barrier: Barrier) -> None:
        self._asked[barrier] = None
        link.up.send(("PING", barrier))


class World:
    """Everything outside the service's processes.

    Args:
        rng: decides latencies and fates.
        trace: where everything is noted.
        later: calls functions at their times.
    """

    def __init__(self, rng: random.Random, trace: Trace, later: Later) -> None:
        self.rng = rng
        self.trace = trace
        self.later = later
        self.broker = Broker(self)
        self.broker.jetstream.kept = self.kept

    def latency(self) -> float:
        """Seconds that a message takes: mostly a few milliseconds, sometimes much more."""
        random_part = self.rng.random()
        if random_part > 0.98:
            return self.rng.uniform(0.01, 0.3)
        return 0.0005 + 0.005 * random_part

    # What can go wrong with a connection.

    def cut(self, bus: SimBus) -> None:
        """Break the connection: what is under way arrives in part."""
        link = bus.link
        if link is None:
            return
        keep = self.rng.randrange(len(link.up) + 1)
        delay = self.rng.choice([0.0, 0.0, self.rng.uniform(0.1, 15.0)])
        link.up.close(keep, delay)
        late = self.rng.choice([0.0, self.rng.uniform(0.0, 10.0)])
        self.later.after(delay + late + 0.05, lambda: self.broker.forget(link))
        self.later.after(self.latency(), lambda: bus.lose(link))

    def cut_off(self, bus: SimBus, late: float) -> None:
        """Break the connection: nothing that is under way arrives, or all of it, so much later."""
        link = bus.link
        if link is not None:
            # What was written in this very moment is on its way by then.
            self.later.after(0.0, lambda: self._cut_off(link, late))

    def _cut_off(self, link: Link, late: float) -> None:
        link.up.close(len(link.up) if late else 0, late)
        self.later.after(late + 0.05, lambda: self.broker.forget(link))
        self.later.after(self.latency(), lambda: link.bus.lose(link))

    def silence(self, bus: SimBus, seconds: float) -> None:
        """Nothing arrives for so long, in one direction or both; the client gives it up after 10 to 15 s."""
        link = bus.link
        if link is None:
            return
        lanes = self.rng.choice([(link.up, link.down), (link.up,), (link.down,)])
        for lane in lanes:
            lane.stalled = True
        self.trace.add("silent", bus.name)
        patience = self.rng.uniform(10.0, 15.0)

        def end() -> None:
            if bus.link is link:
                self.trace.add("heard", bus.name)
            for lane in lanes:
                if lane.stalled:
                    lane.resume()

        def give_up() -> None:
            if bus.link is link:
                keep = self.rng.choice([0, len(link.up)])
                delay = self.rng.uniform(0.0, 20.0)
                link.up.close(keep, delay)
                self.later.after(delay + self.rng.uniform(0.0, 10.0), lambda: self.broker.forget(link))
                bus.lose(link)

        if seconds < patience:
            self.later.after(seconds, end)
        else:
            self.later.after(patience, give_up)

    def drop_slow(self, bus: SimBus) -> None:
        """The broker hangs up on a client that reads too slowly: what waits for it is lost."""
        link = bus.link
        if link is None:
            return
        link.down.stalled = True

        def hang_up() -> None:
            self.broker.forget(link)
            link.up.close()
            link.down.close()
            self.later.after(self.latency(), lambda: bus.lose(link))

        self.later.after(self.rng.uniform(0.01, 1.0), hang_up)

    # What is noted.

    def left(self, who: str, message: Published) -> None:
        """A process writes a message to its connection."""
        if message.subject.startswith("_INBOX.client") and b'"status":"accepted"' in message.data:
            self.trace.add("accepted left", who, json.loads(message.data)["id"])
        self._note("left", who, message)

    def arrived(self, who: str, message: Published) -> None:
        """A message reaches the broker."""
        self._note("arrived", who, message)

    def unheard(self, who: str, message: Published) -> None:
        """Nobody was there for a message that reached the broker."""
        self._note("unheard", who, message)

    def _note(self, kind: str, who: str, message: Published) -> None:
        subject = message.subject
        if message.reply.startswith("scheduler.reply."):
            body = json.loads(message.data)
            identity = (message.headers or {}).get("Nats-Msg-Id", "")
            detail = (identity, subject, message.reply)
            self.trace.add(f"request {kind}", who, body["service"], body["_component_id"], detail)
        elif subject.startswith("scheduler.log.") and kind != "unheard":
            record = (message.headers or {}).get("Scheduler-Record", "")
            takes_up = b'"event":"loading"' in message.data
            self.trace.add(f"append {kind}", who, subject[len("scheduler.log.") :], detail=(record, takes_up))
        elif subject.split(".")[0] in {"build", "service"} and subject.split(".")[-1] in {"done", "error"}:
            identity = (message.headers or {}).get("Nats-Msg-Id", "")
            build = json.loads(message.data).get("id", "")
            self.trace.add(f"report {kind}", who, build, detail=(subject, identity, message.data))

    def delivered(self, who: str, message: Message) -> None:
        """A message is handed to a process."""
        if message.data.startswith(_READ_BACK):
            kept = json.loads(message.data).get("message", {})
            if kept.get("subject", "").startswith("scheduler.log."):
                head = base64.b64decode(kept.get("hdrs", "")).decode()
                record = head.partition("Scheduler-Record: ")[2].partition("\r\n")[0]
                self.trace.add("read back", who, kept["subject"][len("scheduler.log.") :], detail=record)

    def kept(self, stream: Stream, kept: Kept) -> None:
        """A stream has a new message."""
        headers: Mapping[str, str] = kept.headers or {}
        detail = (kept.subject, kept.sequence, kept.data, tuple(headers.items()))
        self.trace.add("kept", stream.name, detail=detail)
