"""Builds in the log when a scheduler starts."""

import asyncio

from benchmarks.hostile.arena import Arena, Course, attack, build, component
from benchmarks.hostile.attacks.crowds import large
from benchmarks.hostile.attacks.templates import existing
from benchmarks.processes import Store


async def _restarted(arena: Arena) -> None:
    ready = await arena.restart()
    # Until then nothing is taken, from anybody.
    arena.begin()
    arena.tally[f"ready in {ready:.1f} s;"] += 1
    await asyncio.sleep(8)


@attack("restart-with-large-builds", stores=[Store.JETSTREAM], limit=60.0, signalled=False)
async def large_in_log(arena: Arena) -> Course:
    """Killed with three builds of 10,000 components in the log, and 1,500 requests in flight."""
    await arena.connect("silent", lambda _: None)
    data = large(kind="silent", text="x" * 100)
    for _ in range(3):
        await arena.submit(data, components=10_000)
    yield
    await _restarted(arena)


@attack("restart-with-heavy-builds", stores=[Store.JETSTREAM], limit=60.0, signalled=False)
async def heavy_in_log(arena: Arena) -> Course:
    """Killed with builds in the log whose references take work; they are due after the restart."""
    await arena.connect("silent", lambda _: None)
    there = [existing(f"e{n}", tag=f"t{n}") for n in range(4_000)]
    changes = [component(n, "silent", x=f'$(components.#[tag="t{3_999 - n}"].tag)') for n in range(1, 400)]
    first = component(0, "silent")
    edges = [{"source": "silent::0", "destination": f"silent::{number}"} for number in range(1, 400)]
    data = build([first, *changes], components=there, edges=edges)
    for _ in range(8):
        await arena.submit(data, components=400)
    yield
    await _restarted(arena)


@attack("restart-with-many-builds", stores=[Store.JETSTREAM], limit=60.0, signalled=False)
async def many_in_log(arena: Arena) -> Course:
    """Killed with 5,000 small builds in the log."""
    await arena.connect("silent", lambda _: None)
    data = build([component(1, "silent")])
    for _ in range(10):
        await asyncio.gather(*[arena.submit(data, components=1) for _ in range(500)])
    yield
    await _restarted(arena)
