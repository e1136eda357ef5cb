"""Builds that are large, many, wrong, or knotted."""

import asyncio
from typing import Any

from benchmarks.hostile.arena import PLACEHOLDER, Arena, Course, attack, build, completed, component, encode
from benchmarks.hostile.attacks.crowds import SILENT, large


@attack("builds-of-8-mb")
async def large_builds(arena: Arena) -> Course:
    """One after another, each as large as a message may be."""
    await arena.connect("thing", completed)
    changes = [component(number, text="x" * 200_000) for number in range(38)]
    data = build(changes)
    yield
    while arena.again():
        await arena.run(data, components=len(changes))


@attack("builds-of-8-mb-small-parts")
async def large_builds_of_small_parts(arena: Arena) -> Course:
    """Ten thousand components of 750 bytes, several such builds at a time."""
    await arena.connect("thing", completed)
    data = large(fields={f"k{n}": [n, str(n)] for n in range(40)})
    yield
    await asyncio.gather(*[arena.run(data, components=10_000) for _ in range(3)])


@attack("8-mb-of-existing")
async def existing(arena: Arena) -> Course:
    """A build of nothing but what exists, 60,000 components."""
    there = [
        {"_component_id": f"{n}", "_component": "a", "_provider": "b", "_action": "create"}
        for n in range(60_000)
    ]
    data = build([], components=there)
    yield
    while arena.again():
        await arena.run(data)


@attack("the-same-again")
async def same_again(arena: Arena) -> Course:
    """A build that is there, submitted again and again, 7 MB each time."""
    changes = [component(number, SILENT, text="x" * 200_000) for number in range(35)]
    await arena.connect(SILENT, lambda _: None)
    data = build(changes).replace(PLACEHOLDER.encode(), b"hostile-again-%d" % id(changes))
    yield
    arena.waiting += len(changes)
    while arena.again():
        await arena.submit(data)


@attack("invalid-builds")
async def invalid_builds(arena: Arena) -> Course:
    """A hundred problems each, by the thousand."""
    data = build([component(1, _provider=number) for number in range(100)])
    yield
    while arena.again():
        await asyncio.gather(*[arena.submit(data) for _ in range(100)])


@attack("invalid-and-unanswerable")
async def unanswerable(arena: Arena) -> Course:
    """Invalid builds without a subject for the answer: each comes back whole, as an event for everybody."""
    data = build([component(n, _provider=n, text="x" * 1_000) for n in range(1_000)])
    yield
    number = 0
    while arena.again():
        number += 1
        await arena.nats.publish("build.create", data.replace(PLACEHOLDER.encode(), b"hostile-n%d" % number))
        await asyncio.sleep(0.01)
    arena.tally["sent"] = number


@attack("invalid-builds-of-8-mb")
async def large_invalid_builds(arena: Arena) -> Course:
    """A hundred thousand problems each."""
    data = encode(
        {
            "id": PLACEHOLDER,
            "changes": [1] * 100_000,
            "edges": [{"source": "a", "destination": n} for n in range(100_000)],
        }
    )
    yield
    while arena.again():
        await arena.submit(data)


@attack("deep-and-wide")
async def deep_and_wide(arena: Arena) -> Course:
    """JSON that is as deep as it may be and deeper, wide, and full of escapes and long numbers."""
    await arena.connect("thing", completed)
    deep: Any = 1
    for _ in range(58):
        deep = [deep, {}]
    deeper = b'{"id":"@build@","changes":' + b"[" * 4_000_000 + b"]" * 4_000_000 + b"}"
    fields: dict[str, Any] = {f"k{m}": m for m in range(12_000)}
    wide = build([component(n, **fields) for n in range(30)])
    escaped = build([component(n, text="\N{SNOWMAN}" * 40_000) for n in range(30)])
    numbers = build([component(n, many=[int("9" * 300)] * 800) for n in range(30)])
    inputs = [build([component(n, deep=[deep] * 300) for n in range(30)]), deeper, wide, escaped, numbers]
    yield
    while arena.again():
        for data in inputs:
            await arena.run(data, components=30)


@attack("a-hub-of-10000")
async def hub(arena: Arena) -> Course:
    """All wait for one, and one for all."""
    await arena.connect("thing", completed)
    changes = [component(number) for number in range(9_999)]
    edges = [{"source": "thing::0", "destination": f"thing::{number}"} for number in range(1, 9_998)]
    edges += [{"source": f"thing::{number}", "destination": "thing::9998"} for number in range(1, 9_998)]
    data = build(changes, edges=edges)
    yield
    while arena.again():
        await arena.run(data, components=10_000)


@attack("100000-edges")
async def edges(arena: Arena) -> Course:
    """As many edges as there may be: everybody in a layer of 300 depends on all of the one before."""
    await arena.connect("thing", completed)
    changes = [component(number) for number in range(650)]
    found = [
        {"source": f"thing::{source}", "destination": f"thing::{end}"}
        for source in range(300)
        for end in range(300, 633)
    ]
    data = build(changes, edges=found)
    yield
    while arena.again():
        await arena.run(data, components=len(changes))


@attack("knots")
async def knots(arena: Arena) -> Course:
    """Cycles without number, in one knot and in thousands."""
    ids = [component(number) for number in range(9_999)]
    tangle = [
        {"source": f"thing::{n}", "destination": f"thing::{n * m % 9_999}"}
        for n in range(9_999)
        for m in (2, 3, 5, 7, 11, 13)
    ]
    pairs = [{"source": f"thing::{n}", "destination": f"thing::{n ^ 1}"} for n in range(9_998)]
    dense = [{"source": f"thing::{n}", "destination": f"thing::{m}"} for n in range(300) for m in range(300)]
    inputs = [build(ids, edges=found) for found in (tangle, pairs, dense)]
    yield
    while arena.again():
        for data in inputs:
            await arena.submit(data)


@attack("limits-of-many-patterns")
async def limits(arena: Arena) -> Course:
    """A hundred limits in each of 100 builds, all of which each request falls under."""
    await arena.connect("thing", completed)
    names = ["thing.create.evil", "thing.create.*", "thing.*.evil", "*.create.evil", "*.*.evil", "thing.*.*"]
    patterns = dict.fromkeys(names, 5) | {f"thing.create.p{n}": 5 for n in range(90)}
    data = build([component(number) for number in range(100)], options={"limits": patterns})
    yield
    while arena.again():
        await asyncio.gather(*[arena.run(data, components=100) for _ in range(20)])


@attack("no-json")
async def no_json(arena: Arena) -> Course:
    """What is no build at all, as quickly as the broker takes it."""
    inputs = [b"", b"{", b"[]" * 100, b"\xff" * 1_000, b'{"id":1}', b'{"id":"a b"}']
    yield
    number = 0
    while arena.again():
        for data in inputs * 50:
            await arena.nats.publish("build.create", data)
            number += 1
        await asyncio.sleep(0.01)
    arena.tally["sent"] = number
