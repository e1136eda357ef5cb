"""What is small by itself, and held or sent by the thousand."""

import asyncio
import json
from typing import Any

from benchmarks.hostile.arena import PLACEHOLDER, PROVIDER, Arena, Course, attack, build, completed, component
from benchmarks.hostile.broker import PASSWORD, User
from benchmarks.processes import Store

SILENT = "silent"
"""The type of components that nobody answers for."""


def large(count: int = 10_000, kind: str = "thing", **fields: Any) -> bytes:
    """A build of many components that depend on nothing."""
    return build([component(number, kind, **fields) for number in range(count)])


@attack("small-builds-by-another", limit=30.0)
async def crowd(arena: Arena) -> Course:
    """Ten thousand small builds at a time, from another submitter."""
    await arena.connect("thing", completed)
    data = build([component(1)])
    yield
    await asyncio.gather(*[arena.run(data, components=1) for _ in range(10_000)])


@attack(
    "small-builds-by-the-same",
    limit=30.0,
    excuse="they come from the healthy builds' own submitter, and cannot be told from them",
)
async def crowd_of_the_same(arena: Arena) -> Course:
    """The same from who cannot be told from the healthy submitter."""
    await arena.connect("thing", completed)
    data = build([component(1)])
    same = await arena.log_in(User.HEALTHY)
    yield
    arena.waiting = 10_000
    await asyncio.gather(*[_submit(arena, same, data, number) for number in range(10_000)])


async def _submit(arena: Arena, client: Any, data: bytes, number: int) -> None:
    name = b"hostile-s%d-%d" % (id(client), number)
    answer = await client.request("build.create", data.replace(PLACEHOLDER.encode(), name), timeout=60)
    arena.tally[str(json.loads(answer.data)["status"])] += 1


@attack("builds-that-never-end", limit=30.0)
async def never_ending(arena: Arena) -> Course:
    """As many builds as there may be, for a connector that does not answer."""
    await arena.connect(SILENT, lambda _: None)
    data = build([component(1, SILENT)])
    yield
    for _ in range(10):
        await asyncio.gather(*[arena.submit(data, components=1) for _ in range(1_050)])
    await asyncio.sleep(2)


@attack("lists-of-5000-builds", signalled=False, settings={"limits": "silent.create.*=10"})
async def lists(arena: Arena) -> Course:
    """Twenty people who list thousands of builds, most of which wait for a slot of their own limit."""
    await arena.connect(SILENT, lambda _: None)
    data = build([component(1, SILENT)])
    for _ in range(10):
        await asyncio.gather(*[arena.submit(data, components=1) for _ in range(500)])
    yield
    while arena.again():
        await asyncio.gather(*[arena.ask("list", {"all": number % 2 == 0}) for number in range(20)])


@attack("slots-that-are-held")
async def held_slots(arena: Arena) -> Course:
    """More requests than may be in flight, for a connector that does not answer."""
    await arena.connect(SILENT, lambda _: None)
    data = large(1_000, SILENT)
    yield
    await asyncio.gather(*[arena.submit(data, components=1_000) for _ in range(10)])
    await asyncio.sleep(5)


@attack("nobody-listens")
async def nobody(arena: Arena) -> Course:
    """Ten thousand requests for a connector that is not there."""
    data = large(kind="nobody")
    yield
    await arena.run(data, components=10_000)


@attack("a-connector-that-never-reads")
async def deaf(arena: Arena) -> Course:
    """A connection that takes requests and reads none of them, of 200 KB each."""
    host, port = arena.address
    _, writer = await asyncio.open_connection(host, port)
    login = {"user": User.CONNECTOR.value, "pass": PASSWORD, "verbose": False, "pedantic": False}
    subject = f"thing.create.{PROVIDER}"
    writer.write(f"CONNECT {json.dumps(login)}\r\nSUB {subject} 1\r\n".encode())
    await writer.drain()
    data = build([component(number, text="x" * 200_000) for number in range(38)])
    yield
    try:
        for _ in range(20):
            await arena.submit(data, components=38)
        await asyncio.sleep(2)
    finally:
        writer.close()


@attack("quick-timeouts")
async def timeouts(arena: Arena) -> Course:
    """Attempts that time out at once, and are made again."""
    await arena.connect(SILENT, lambda _: None)
    retry = {"attempts": 100, "backoff": 0.001, "max_backoff": 0.001}
    changes = [component(n, SILENT, _timeout=0.001, _retry=retry) for n in range(2_000)]
    data = build(changes, options={"on_error": "continue"})
    yield
    await arena.run(data, components=2_000)


@attack("quick-retries")
async def retries(arena: Arena) -> Course:
    """Components that fail a thousand times, as quickly as they may, with a text of 60 KB each time."""
    text = "refused: token=abc " * 3_000
    await arena.connect("thing", lambda asked: asked | {"_state": "errored", "error": text})
    retry = {"attempts": 1_000, "backoff": 0.001, "max_backoff": 0.001}
    changes = [component(n, token=f"secret-{n}", _retry=retry) for n in range(100)]
    data = build(changes, options={"on_error": "continue"})
    yield
    await arena.run(data, components=100)


@attack("quick-retries-short")
async def short_retries(arena: Arena) -> Course:
    """The same by the thousand, with a short text."""
    await arena.connect("thing", lambda asked: asked | {"_state": "errored", "error": "no"})
    retry = {"attempts": 1_000, "backoff": 0.001, "max_backoff": 0.001}
    data = build([component(n, _retry=retry) for n in range(2_000)], options={"on_error": "continue"})
    yield
    await arena.run(data, components=2_000)


@attack("subjects-by-the-thousand", limit=20.0)
async def subjects(arena: Arena) -> Course:
    """Every component has a type of its own, so that nothing kept by subject is ever used again."""

    async def answer(message: Any) -> None:
        await message.respond(message.data.replace(b'"running"', b'"completed"'))

    await arena.connector.subscribe(f"*.create.{PROVIDER}", cb=answer, pending_bytes_limit=2**30)
    await arena.connector.flush()
    builds = [build([component(n, f"t{n}-{m}-{'x' * 40}") for n in range(5_000)]) for m in range(6)]
    yield
    for data in builds:
        await arena.run(data, components=5_000)


@attack("cancel-of-10000")
async def cancel(arena: Arena) -> Course:
    """A build of 10,000 is begun and cancelled, again and again."""
    await arena.connect(SILENT, lambda _: None)
    data = large(kind=SILENT)
    yield
    while arena.again():
        name = await arena.submit(data, components=10_000)
        if name is not None:
            await arena.ask("cancel", {"id": name, "now": True})
            await arena.ended(name)


@attack("failures-of-10000")
async def failures(arena: Arena) -> Course:
    """The hub fails, and 10,000 that depend on it are skipped; then it is tried again by hand."""
    await arena.connect("thing", lambda asked: asked | {"_state": "errored", "error": "no" * 1_000})
    edges = [{"source": "thing::0", "destination": f"thing::{number}"} for number in range(1, 10_000)]
    changes = [component(number) for number in range(10_000)]
    data = build(changes, edges=edges, options={"on_error": "continue"})
    yield
    while arena.again():
        name = await arena.run(data, components=10_000)
        await arena.ask("retry", {"id": name})


@attack("objects-of-60-mb", stores=[Store.JETSTREAM], limit=30.0)
async def objects(arena: Arena) -> Course:
    """Builds of 60 MB by way of the object store."""
    await arena.connect("thing", completed)
    changes = [component(n, text="x" * 240_000) for n in range(250)]
    store = await arena.connector.jetstream().object_store("SCHEDULER_OBJECTS")
    names = []
    for number in range(2):
        data = build(changes).replace(PLACEHOLDER.encode(), b"hostile-o%d" % number)
        names.append(f"upload/{id(arena)}-{number}")
        await store.put(names[-1], data)
    yield
    for number, name in enumerate(names):
        order = json.dumps({"id": f"hostile-o{number}", "object": name}).encode()
        answer = await arena.nats.request("build.create", order, timeout=60)
        arena.tally[str(json.loads(answer.data)["status"])] += 1
    await asyncio.sleep(8)


@attack("missing-objects")
async def missing(arena: Arena) -> Course:
    """Builds that are said to be in the object store."""
    yield
    while arena.again():
        orders = [json.dumps({"id": PLACEHOLDER, "object": f"upload/{n}"}).encode() for n in range(50)]
        await asyncio.gather(*[arena.submit(order) for order in orders])
