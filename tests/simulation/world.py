"""Simulated world: a broker with JetStream that outlives its clients, and the faults of connections.

A broker is one object with one state, so its class is longer than others.
"""

import base64
import json
import random
from collections.abc import Callable, Mapping
from functools import partial

from support.fake_bus import Published
from support.fake_jetstream import FakeJetStream, Kept, Later, Stream

from scheduler.bus import Message
from scheduler.bus.subjects import matches
from scheduler.fleet.bucket import LEASES
from scheduler.jetstream.rivals import PROBE_SUBJECT
from scheduler.jetstream.streams import SENTINEL
from simulation.network import Item, Lane, Link, SimBus
from simulation.trace import Trace

_READ_BACK = b'{"type": "io.nats.jetstream.api.v1.stream_msg_get_response"'


class Broker:
    """Routes messages between connections; its streams are those of a `FakeJetStream`."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.up = True
        self.size = 1
        """Number of servers."""
        self.gone: set[int] = set()
        """Servers that are not there."""
        self.jetstream = FakeJetStream(self, world.later)
        self.links: dict[Link, None] = {}
        self._returned: list[Callable[[], None]] = []
        self._literal: dict[str, list[tuple[Link, int, str]]] = {}
        self._wild: dict[int, list[tuple[list[str], Link, int, str]]] = {}
        """By the number of tokens, 0 for those that end with ``>``."""
        self._postponed: list[Published] = []
        self.apart: int | None = None
        """Server that hears nothing of the others, nor they of it; streams are theirs."""
        self.slow_disk = 0.0
        """Seconds that storing a message may take."""
        self.slow_leases = 0.0
        """The same, for what is stored in the bucket of the leases."""
        self._disk = Lane(world, self.jetstream.take)
        self._bucket = Lane(world, self.jetstream.take)

    def when_up(self, job: Callable[[], None]) -> None:
        """Call ``job`` once when the broker is there again."""
        self._returned.append(job)

    def servers(self) -> list[int]:
        """Those that can be connected to."""
        return [server for server in range(self.size) if server not in self.gone] if self.up else []

    def lose_server(self, server: int, *, hangs: bool, seconds: float) -> None:
        """A server ends at once, or hangs for so long: what it was told last nobody else hears."""
        self.gone.add(server)
        for link in [link for link in self.links if link.server == server]:
            if hangs:
                self.world.silence(link.bus, seconds, both=True)
            else:
                link.up.close()
                self.forget(link)
                self.world.later.after(self.world.latency(), partial(link.bus.lose, link))
        # Consumers in memory were there, or follow whoever leads now.
        self.jetstream.restart()

    def regain_server(self, server: int) -> None:
        """It is back."""
        self.gone.discard(server)
        if self.up:
            self.restart()

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
        self._bucket = Lane(self.world, self.jetstream.take)

    def restart(self) -> None:
        """Be there again."""
        self.up = True
        returned, self._returned = self._returned, []
        for job in returned:
            job()

    def lose_quorum(self) -> None:
        """Make streams take and answer nothing more, while everything else continues."""
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
        """End a connection, as far as the broker knows."""
        if self.links.pop(link, self) is None:
            if link.bus.link is link:
                self.world.trace.add("hung up", link.bus.name)
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
        if link.server == self.apart:
            # Of a stream there may be the leader, which stores nothing any more.
            heard = message.subject.startswith("$JS.")
            heard = heard or (self._is_stored(message.subject) and self.world.rng.random() < 0.5)
            heard = self.route(message.subject, message, apart=True) or heard
        else:
            stored = not message.subject.startswith("$JS.")
            if self.jetstream.silent and stored and self.world.rng.random() < 0.3:
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
        if message.subject.startswith("$KV.") and (self.slow_leases or len(self._bucket)):
            self._bucket.send(message, self.world.rng.uniform(0.0, self.slow_leases))
            return True
        takes = (self.slow_disk or len(self._disk)) and not message.subject.startswith("$JS.")
        if takes and self._is_stored(message.subject):
            self._disk.send(message, self.world.rng.uniform(0.0, self.slow_disk))
            return True
        return self.jetstream.take(message)

    def _is_stored(self, subject: str) -> bool:
        return any(stream.takes(subject) for stream in self.jetstream.streams.values())

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
        return bool(self._heard_by(to))

    def _heard_by(self, to: str, *, apart: bool = False) -> list[tuple[Link, int, str]]:
        listeners = self._listeners(to)
        if self.apart is None:
            return listeners
        return [one for one in listeners if (one[0].server == self.apart) == apart]

    def route(self, to: str, message: Published, *, apart: bool = False) -> bool:
        """Send a message to whoever listens, one of each queue group; says whether there was anybody.

        Args:
            to: subject that is listened to.
            message: what is sent.
            apart: whether it comes from the server that the others do not hear.
        """
        groups: dict[str, list[tuple[Link, int]]] = {}
        listeners = self._heard_by(to, apart=apart)
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

    def silence(self, bus: SimBus, seconds: float, *, both: bool = False) -> None:
        """Nothing arrives for so long, in one direction or both; the client gives it up after 10 to 15 s."""
        link = bus.link
        if link is None:
            return
        ways = [(link.up, link.down), (link.up,), (link.down,)]
        lanes = ways[0] if both else self.rng.choice(ways)
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

    def cut_off_from(self, bus: SimBus, servers: frozenset[int], seconds: float) -> None:
        """A client and some servers hear nothing of each other for so long."""
        bus.cut_from |= servers
        if bus.link is not None and bus.link.server in servers:
            self.silence(bus, seconds, both=True)
        self.later.after(seconds, bus.reach)

    def hang_up(self, bus: SimBus) -> None:
        """The broker gives a connection up; its client notices, when it can."""
        link = bus.link
        if link is not None:
            self.broker.forget(link)
            link.up.close()
            link.down.close()
            bus.lose(link)

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
        elif message.subject.startswith(LEASES):
            self.trace.add("lease left", who, detail=_lease(message.subject, message.data))
        self._note("left", who, message)

    def arrived(self, who: str, message: Published) -> None:
        """A message reaches the broker."""
        self._note("arrived", who, message)
        if message.subject.startswith("scheduler.beat."):
            self.trace.add("beat arrived", who, detail=json.loads(message.data)["message"])
        elif message.subject.startswith("scheduler.returned."):
            self.trace.add("back arrived", who, detail=json.loads(message.data)["attempts"])
        elif message.subject.startswith(LEASES):
            self.trace.add("lease arrived", who, detail=_lease(message.subject, message.data))
        elif self.broker.size > 1 and who.endswith("-connector"):
            self.trace.add("reply arrived", who, detail=json.loads(message.data)["serial"])

    def unheard(self, who: str, message: Published) -> None:
        """Note that a message which reached the broker had no subscriber."""
        self._note("unheard", who, message)

    def _note(self, kind: str, who: str, message: Published) -> None:
        subject = message.subject
        if subject in {PROBE_SUBJECT, SENTINEL}:
            return  # of no build
        if message.reply.startswith("scheduler.reply."):
            body = json.loads(message.data)
            identity = (message.headers or {}).get("Nats-Msg-Id", "")
            sent = (identity, subject, message.reply, len(message.data))
            self.trace.add(f"request {kind}", who, body["service"], body["_component_id"], sent)
        elif subject.startswith("scheduler.log.") and kind != "unheard":
            record = (message.headers or {}).get("Scheduler-Record", "")
            loads = b'"event":"loading"' in message.data
            takes_up = loads or b'"event":"retried"' in message.data
            self.trace.add(f"append {kind}", who, subject[len("scheduler.log.") :], detail=(record, takes_up))
            if loads and kind == "arrived":
                self.trace.add("taking over", who, subject[len("scheduler.log.") :])
        elif subject.startswith("scheduler.event.") and kind == "left":
            told = json.loads(message.data)
            self.trace.add("progress left", who, told["build"], detail=json.dumps(told["events"]))
        elif subject.startswith("scheduler.build.") and who == "operator":
            document = json.loads(message.data)
            detail = (subject[len("scheduler.build.") :], message.reply, document)
            self.trace.add(f"order {kind}", who, document["id"], document.get("component", ""), detail)
        elif subject.startswith("_INBOX.operator") and kind == "left":
            told = json.loads(message.data)
            self.trace.add("told left", who, told["id"] or "", detail=(subject, message.headers is None))
        elif subject.split(".")[0] in {"build", "service"} and subject.split(".")[-1] in {"done", "error"}:
            identity = (message.headers or {}).get("Nats-Msg-Id", "")
            build = json.loads(message.data).get("id", "")
            self.trace.add(f"report {kind}", who, build, detail=(subject, identity, message.data))

    def delivered(self, who: str, message: Message) -> None:
        """A message is handed to a process."""
        if message.data.startswith(_READ_BACK):
            kept = json.loads(message.data).get("message", {})
            if kept.get("subject", "").startswith(LEASES):
                detail = (kept["subject"][len(LEASES) :], kept["seq"])
                self.trace.add("lease seen", who, detail=detail)
            if kept.get("subject", "").startswith("scheduler.log.") and kept["subject"] != SENTINEL:
                head = base64.b64decode(kept.get("hdrs", "")).decode()
                record = head.partition("Scheduler-Record: ")[2].partition("\r\n")[0]
                self.trace.add("read back", who, kept["subject"][len("scheduler.log.") :], detail=record)

    def kept(self, stream: Stream, kept: Kept) -> None:
        """A stream has a new message."""
        if kept.subject.startswith(LEASES):
            self.trace.add("lease kept", detail=(*_lease(kept.subject, kept.data), kept.sequence))
            return
        headers: Mapping[str, str] = kept.headers or {}
        detail = (kept.subject, kept.sequence, kept.data, tuple(headers.items()))
        self.trace.add("kept", stream.name, detail=detail)


def _lease(subject: str, data: bytes) -> tuple[str, str, str, float]:
    """What is looked at of a lease: its key, the process, what that does, and when it was written."""
    lease = json.loads(data)
    return (subject[len(LEASES) :], lease["instance"], lease["standing"], lease["renewed"])
