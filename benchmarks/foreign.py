"""Measures what the replies of other instances cost: ``python -m benchmarks.foreign``.

Every instance of a fleet hears what connectors answer on shared subjects. Here one instance gets the replies
to ten others, and none of its own, from another process over a real nats-server. Its CPU time a reply is
measured where a handler does nothing, so that there is only the broker's client, and in turn where the reply
is looked at as in the service: while nothing is awaited here, and beside a thousand requests in flight.

The second table has the captured replies, of which a tenth are its own: CPU time of each in the stream, where
all of it is followed, and where only what may be ours is.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import process_time
from typing import Final

import attrs
import nats
import trio
from attrs import frozen

from benchmarks.machine import Machine
from benchmarks.processes import nats_server, scratch
from scheduler.bus import Bus, Handler, Message
from scheduler.bus.nats import open_bus
from scheduler.bus.options import BusOptions
from scheduler.definition.reply_subjects import owner_of
from scheduler.definition.rules import Retry
from scheduler.definition.strictjson import encode
from scheduler.dispatch.call import Call
from scheduler.dispatch.client import ConnectorClient
from scheduler.dispatch.timers import Timers
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.capturing import REPLIES, StreamLayout, followed
from scheduler.jetstream.reading import StreamFollower
from scheduler.jetstream.setup import set_up
from scheduler.journal.events import Started
from scheduler.journal.records import Position
from scheduler.plan import Request

MOST: Final = 5.0
"""Most that a foreign reply may cost beyond its being handed over, in microseconds."""
_INSTANCES: Final = 10
_IN_FLIGHT: Final = 1_000
_SIZES: Final = (160, 4_096)
_SUBJECT: Final = "vpc.create.aws"
_OURS: Final = "measured"
_DEADLINE: Final = 120.0


@frozen
class Cost:
    """CPU time of a reply, in microseconds: medians."""

    size: int
    """Bytes of each."""
    handed_over: float
    """Of the client alone."""
    idle: float
    """Where nothing is awaited here."""
    busy: float
    """Beside requests in flight."""
    beyond: float
    """Median of what the last one takes more than the client alone in the same round."""
    captured_all: float
    """Of each in the stream, where all of it is followed."""
    captured_ours: float
    """Where only what may be ours is."""

    @property
    def met(self) -> bool:
        """Whether it costs little enough."""
        return self.beyond <= MOST


def reply(number: int, size: int) -> bytes:
    """Make the reply of a connector, of about so many bytes."""
    build, tags = number % _INSTANCES, max(0, (size - 160) // 51)
    return encode(
        {
            "service": f"foreign-{build}",
            "_component_id": f"vpc::{number}",
            "_component": "vpc",
            "_action": "create",
            "_provider": "aws",
            "_state": "completed",
            "name": "net",
            "vpc_id": "vpc-0123",
            **(
                {"tags": [{"key": f"k{n:02}", "value": "v" * 20, "n": n} for n in range(tags)]}
                if tags
                else {}
            ),
        }
    )


async def _publish(url: str, count: int, size: int, own: bool) -> None:
    """Publish replies, as the connectors of others do; with ``own``, on the reply subjects of instances."""
    client = await nats.connect(url)
    owners = [owner_of(_OURS if n == 0 else f"other-{n}") for n in range(_INSTANCES)]
    for number in range(count):
        subject = f"{_SUBJECT}.done"
        if own:
            subject = f"scheduler.reply.{owners[number % _INSTANCES]}.aws.{number:032x}"
        await client.publish(subject, reply(number, size))
        if number % 500 == 0:
            await client.flush()
    await client.flush()
    await client.close()


@frozen
class Flood:
    """Replies to others that another process publishes."""

    url: str
    count: int
    size: int

    async def come(self, *, own: bool = False) -> None:
        """Publish them; with ``own``, on the reply subjects of instances."""
        arguments = [self.url, str(self.count), str(self.size)]
        command = [sys.executable, "-m", "benchmarks.foreign", "--publish", *arguments]
        await trio.run_process([*command, *(["--own"] if own else [])])

    async def hear(self, bus: Bus, handler: Handler) -> float:
        """Return the CPU time of a reply that comes directly, in microseconds."""
        came = 0
        all_came = trio.Event()

        def take(message: Message) -> None:
            nonlocal came
            handler(message)
            came += 1
            if came == self.count:
                all_came.set()

        subscription = await bus.subscribe(f"{_SUBJECT}.done", take)
        began = process_time()
        with trio.fail_after(_DEADLINE):
            await self.come()
            await all_came.wait()
        spent = process_time() - began
        await subscription.unsubscribe()
        return spent / self.count * 1e6


async def _followed(bus: Bus, take: Handler, count: int, subjects: Sequence[str]) -> float:
    """Return the CPU time of a reply in the stream, in microseconds."""
    follower = StreamFollower(
        JetStream(bus),
        REPLIES,
        lambda one: take(Message(one.subject, one.data, "", one.headers)),
        subjects=subjects,
    )
    began = process_time()
    async with trio.open_nursery() as nursery:
        with trio.fail_after(_DEADLINE):
            await nursery.start(follower.run, Position())
            await follower.caught_up()
        nursery.cancel_scope.cancel()
    return (process_time() - began) / count * 1e6


def _receiving(bus: Bus, in_flight: int) -> Handler:
    """Return the receiving side of a service with so many requests in flight."""
    client = ConnectorClient(bus, Timers(bus, lambda: True), instance=_OURS, shares=lambda: True)
    for number in range(in_flight):
        component = f"vpc::{number}"
        attempt = f"ours/{component}/1"
        request = Request(
            number, "ours", component, attempt, _SUBJECT, "vpc", "aws", None, Retry(), b"{}",
            Started(component, attempt, b""),
        )  # fmt: skip
        client.router.add(Call(client.sending, request, f"{number:032x}", 1))
    return client.take


async def _measure(bus: Bus, flood: Flood, rounds: int) -> Cost:
    idle, busy = _receiving(bus, 0), _receiving(bus, _IN_FLIGHT)
    handlers: dict[str, Handler] = {"none": lambda _: None, "idle": idle, "busy": busy}
    found: dict[str, list[float]] = {name: [] for name in (*handlers, "all", "ours")}
    for _ in range(rounds):
        for name, handler in handlers.items():
            found[name].append(await flood.hear(bus, handler))
    js = JetStream(bus)
    await set_up(js, StreamLayout())
    await flood.come(own=True)
    for _ in range(rounds):
        found["all"].append(await _followed(bus, busy, flood.count, ()))
        found["ours"].append(await _followed(bus, busy, flood.count, followed([owner_of(_OURS)])))
    await js.call(f"STREAM.DELETE.{REPLIES}")
    pairs = zip(found["busy"], found["none"], strict=True)
    return Cost(
        size=len(reply(0, flood.size)),
        handed_over=median(found["none"]),
        idle=median(found["idle"]),
        busy=median(found["busy"]),
        beyond=median(one - none for one, none in pairs),
        captured_all=median(found["all"]),
        captured_ours=median(found["ours"]),
    )


async def measure(count: int, rounds: int, progress: Callable[[str], object]) -> list[Cost]:
    """Measure each size of a reply."""
    costs = []
    with scratch() as folder, nats_server(folder, jetstream=True) as url:
        async with open_bus(BusOptions((url,))) as bus:
            for size in _SIZES:
                progress(f"replies of {size:,} bytes")
                costs.append(await _measure(bus, Flood(url, count, size), rounds))
    return costs


def table(costs: Sequence[Cost]) -> str:
    """Format the costs in lines."""
    lines = ["foreign reply, CPU in us   handed over    idle   1,000 in flight   beyond the client"]
    lines += [
        f"{one.size:>11,} bytes {one.handed_over:>21.1f} {one.idle:>7.1f} {one.busy:>17.1f}"
        f" {one.beyond:>12.1f} ({'at most' if one.met else 'MISSED:'} {MOST:g})"
        for one in costs
    ]
    lines += ["", "captured, a tenth ours      all followed    ours followed"]
    lines += [f"{one.size:>11,} bytes {one.captured_all:>22.1f} {one.captured_ours:>16.1f}" for one in costs]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, write a JSON file; return 1 if ``--check`` is given and a target is missed."""
    parser = argparse.ArgumentParser("python -m benchmarks.foreign", description=__doc__)
    parser.add_argument("--replies", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="rounds (5)")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "foreign.json")
    parser.add_argument("--check", action="store_true", help="exit code 1 if the target is missed")
    parser.add_argument("--publish", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--own", action="store_true", help=argparse.SUPPRESS)
    found = parser.parse_args(arguments)
    if found.publish:
        url, count, size = found.publish
        asyncio.run(_publish(url, int(count), int(size), found.own))
        return 0
    costs = trio.run(measure, found.replies, found.repeat, lambda what: sys.stderr.write(f"{what}\n"))
    found.output.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "machine": attrs.asdict(Machine.this()),
        "at_most": MOST,
        "replies": [{**attrs.asdict(one), "met": one.met} for one in costs],
    }
    found.output.write_text(json.dumps(document, indent=1) + "\n")
    sys.stdout.write(f"{table(costs)}\n\nwritten: {found.output}\n")
    return int(found.check and not all(one.met for one in costs))


if __name__ == "__main__":
    sys.exit(main())
