#!/usr/bin/env bash
# trio-asyncio runs one asyncio callback a turn of Trio's scheduler, however many are ready.
#
# Version:     trio-asyncio 0.16.0 with trio 0.35.0
# Expectation: as in asyncio, all callbacks that are ready run in one turn of the loop: a thousand that were
#              scheduled at once take one turn, whatever else is there to be run, and connections do not wait
#              for each other.
# Behaviour:   the loop takes one callback from its queue, then every Trio task that can run has its turn,
#              then the next one is taken. A thousand callbacks take a thousand turns. Where Trio's own tasks
#              compute two milliseconds a turn, the last callback runs two seconds later; and of several
#              asyncio connections with something to read, each gets on once in as many turns as there are
#              connections.
# Met by:      a Trio service with an asyncio client, beside Trio tasks that compute.
# Seen on:     2026-11-30
# Output seen: asyncio:      1000 callbacks in 1 turns
#              trio-asyncio: 1000 callbacks in 1000 turns
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q trio-asyncio==0.16.0 trio==0.35.0
cat > "$folder/find.py" <<'PYTHON'
import asyncio
import sys

import trio
import trio_asyncio

CALLBACKS = 1_000


async def in_asyncio() -> int:
    """Return the turns that callbacks take which are ready at the same time."""
    ran, turns = 0, 0

    def callback() -> None:
        nonlocal ran
        ran += 1

    for _ in range(CALLBACKS):
        asyncio.get_running_loop().call_soon(callback)
    while ran < CALLBACKS:
        await asyncio.sleep(0)
        turns += 1
    return turns


async def in_trio_asyncio() -> int:
    """Return the same, in turns of Trio's scheduler."""
    ran, turns = 0, 0

    def callback() -> None:
        nonlocal ran
        ran += 1

    async with trio_asyncio.open_loop() as loop:
        for _ in range(CALLBACKS):
            loop.call_soon(callback)
        while ran < CALLBACKS:
            await trio.lowlevel.checkpoint()
            turns += 1
    return turns


plain, bridged = asyncio.run(in_asyncio()), trio.run(in_trio_asyncio)
print(f"asyncio:      {CALLBACKS} callbacks in {plain} turns")
print(f"trio-asyncio: {CALLBACKS} callbacks in {bridged} turns")
sys.exit(0 if plain == 1 and bridged >= CALLBACKS else 1)
PYTHON
"$folder/venv/bin/python" "$folder/find.py"
