"""Who only looks, or steers a build of their own."""

import asyncio
import json
from typing import Any

from benchmarks.hostile.arena import Arena, Course, attack, build, completed, component, encode
from benchmarks.hostile.attacks.crowds import SILENT, large
from benchmarks.processes import Store


async def _running(arena: Arena) -> str:
    """A build of 10,000 that does not end."""
    await arena.connect(SILENT, lambda _: None)
    name = await arena.submit(large(kind=SILENT, text="x" * 100), components=10_000)
    assert name is not None
    await asyncio.sleep(2)
    return name


async def _finished(arena: Arena) -> str:
    await arena.connect("thing", completed)
    name = await arena.run(large(text="x" * 100), components=10_000)
    assert name is not None
    return name


async def _read_all(arena: Arena, name: str) -> None:
    """What ``status --components`` asks."""
    start: int | None = 0
    while start is not None:
        answer = await arena.ask("get", {"id": name, "components": True, "from": start})
        start = json.loads(answer).get("next") if answer else None


async def _readers(arena: Arena, name: str) -> None:
    while arena.again():
        await asyncio.gather(*[_read_all(arena, name) for _ in range(20)])


@attack("readers-of-10000-running", signalled=False)
async def readers(arena: Arena) -> Course:
    """Twenty people who look at all components of a build."""
    name = await _running(arena)
    yield
    await _readers(arena, name)


@attack("readers-of-10000-finished", signalled=False, stores=[Store.JETSTREAM])
async def readers_of_finished(arena: Arena) -> Course:
    """The same of a build that is over: it stands in the log alone."""
    name = await _finished(arena)
    yield
    await _readers(arena, name)


@attack("why-of-10000-running", signalled=False)
async def why(arena: Arena) -> Course:
    """Twenty people who ask what a build waits for, and then what a component does."""
    name = await _running(arena)
    yield
    while arena.again():
        await asyncio.gather(*[arena.ask("why", {"id": name}) for _ in range(20)])
        asked = [{"id": name, "component": f"{SILENT}::{n * 500}"} for n in range(20)]
        await asyncio.gather(*[arena.ask("why", one) for one in asked])


@attack("why-of-10000-finished", signalled=False, stores=[Store.JETSTREAM])
async def why_of_finished(arena: Arena) -> Course:
    """The same of a build that is over."""
    name = await _finished(arena)
    yield
    while arena.again():
        await asyncio.gather(*[arena.ask("why", {"id": name}) for _ in range(20)])


@attack("questions", signalled=False)
async def questions(arena: Arena) -> Course:
    """More questions than are taken, of all kinds."""
    name = await _running(arena)
    kinds: list[tuple[str, Any]] = [
        ("list", {}), ("list", {"all": True}), ("get", {"id": name, "limit": 1}), ("get", {"id": "nobody"}),
        ("why", {"id": name}), ("plan", {"id": name}), ("extend", {"id": name}), ("get", b"{"),
    ]  # fmt: skip
    yield
    while arena.again():
        await asyncio.gather(*[arena.ask(verb, asked) for verb, asked in kinds * 200])


async def _refused(arena: Arena, at_once: int) -> None:
    while arena.again():
        for number in range(at_once):
            subject = f"scheduler.build.{('get', 'why', 'cancel', 'plan')[number % 4]}"
            await arena.nats.publish(subject, b'{"id":"nobody"}', reply="_INBOX.hostile.nobody")
        arena.tally["sent"] += at_once
        await asyncio.sleep(0.005)


@attack("questions-refused", signalled=False)
async def refused(arena: Arena) -> Course:
    """What nobody can answer, 10,000 times a second, without waiting for it."""
    yield
    await _refused(arena, 50)


@attack("questions-at-full-rate", signalled=False)
async def full_rate(arena: Arena) -> Course:
    """The same as quickly as one connection sends."""
    yield
    await _refused(arena, 500)


@attack("plans-of-8-mb")
async def plans(arena: Arena) -> Course:
    """Builds of 10,000 that are only asked about."""
    changes = [component(number, text="x" * 600) for number in range(10_000)]
    edges = [{"source": f"thing::{n}", "destination": f"thing::{n + 7}"} for n in range(9_990)]
    plain = encode({"id": "x", "build": json.loads(build(changes, edges=edges))})
    yield
    while arena.again():
        await asyncio.gather(*[arena.ask("plan", plain) for _ in range(4)])


@attack("plans-of-heavy-builds")
async def heavy_plans(arena: Arena) -> Course:
    """The same with references that take work."""
    there = [component(f"e{n}", tag=f"t{n}", _state="completed") for n in range(4_000)]
    changes = [component(n, x=f'$(components.#[tag="t{3_999 - n}"].tag)') for n in range(400)]
    asked = encode({"id": "x", "build": json.loads(build(changes, components=there))})
    yield
    while arena.again():
        await asyncio.gather(*[arena.ask("plan", asked) for _ in range(4)])


@attack("discovery", signalled=False)
async def discovery(arena: Arena) -> Course:
    """Questions of the service discovery by the thousand."""
    yield
    while arena.again():
        for subject in ("$SRV.PING", "$SRV.INFO", "$SRV.STATS.scheduler"):
            for _ in range(100):
                await arena.connector.publish(subject, b"", reply="_INBOX.connector.nobody")
        arena.tally["sent"] += 300
        await asyncio.sleep(0.005)


@attack("followers-that-never-read", signalled=False)
async def followers(arena: Arena) -> Course:
    """Fifty watch a build, and read nothing of it: the broker has to notice."""
    await arena.connect("thing", completed)
    opened = []
    for _ in range(50):
        reader, writer = await asyncio.open_connection(*arena.address)
        login = {"user": "hostile", "pass": "bench", "verbose": False, "pedantic": False}
        writer.write(b"CONNECT " + encode(login) + b"\r\nSUB scheduler.event.> 1\r\nSUB build.> 2\r\n")
        await writer.drain()
        opened.append((reader, writer))
    data = large(text="x" * 100)
    yield
    try:
        while arena.again():
            await arena.run(data, components=10_000)
    finally:
        for _, writer in opened:
            writer.close()


@attack("orders")
async def orders(arena: Arena) -> Course:
    """A build is paused and resumed, limited and extended, by the thousand."""
    name = await _running(arena)
    limits = {f"silent.create.p{number}": 5 for number in range(99)}
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("pause", {}), ("resume", {}), ("limit", {"limits": limits}),
        ("extend", {"component": f"{SILENT}::0", "seconds": 1}),
        ("skip", {"component": f"{SILENT}::9999", "output": {"text": "x" * 100_000}}),
    ]  # fmt: skip
    yield
    while arena.again():
        await asyncio.gather(*[arena.ask(verb, {"id": name, **more}) for verb, more in kinds * 20])


@attack("answers-sent-elsewhere", signalled=False)
async def elsewhere(arena: Arena) -> Course:
    """Questions whose answers would be messages of the system, with the scheduler's rights."""
    subjects = [
        "build.create",
        "scheduler.log.x",
        "$JS.API.STREAM.DELETE.SCHEDULER_LOG",
        "thing.create.evil.done",
    ]
    yield
    while arena.again():
        for subject in subjects:
            for _ in range(50):
                await arena.connector.publish("scheduler.build.list", b"{}", reply=subject)
                await arena.connector.publish("build.create", b"{}", reply=subject)
        arena.tally["sent"] += 100 * len(subjects)
        await asyncio.sleep(0.01)
