#!/usr/bin/env bash
# trio-asyncio: a failed task that nobody awaited ends the whole loop, at the moment when it is collected.
#
# Version:     trio-asyncio 0.16.0 with trio 0.35.0
# Expectation: code that runs in asyncio runs the same in trio-asyncio's loop. A task that failed and was
#              never awaited is logged as "exception was never retrieved", and an error in a callback is
#              logged; the rest goes on. Or, if errors are to propagate as in Trio, they do so when they
#              happen.
# Behaviour:   what asyncio hands to the loop's exception handler is logged and then raised out of
#              open_loop(), and everything in it is cancelled. For a forgotten task that is when the garbage
#              collector finds it: at any time after the failure, or not at all as long as somebody holds a
#              reference. loop.set_exception_handler() brings asyncio's way back.
# Met by:      a Trio service with an asyncio library that starts tasks of its own, where one of them fails
#              quietly: the service runs on for minutes, and ends at an innocent place.
# Seen on:     2026-11-30
# Output seen: asyncio:               failed; still there; collected; still there
#              trio-asyncio:          failed; still there; collected; ended by ValueError
#              with a handler of own: failed; still there; collected; still there
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q trio-asyncio==0.16.0 trio==0.35.0
cat > "$folder/find.py" <<'PYTHON'
import asyncio
import gc
import logging
import sys

import trio
import trio_asyncio


async def forget(seen: list[str]) -> None:
    """Start a task that fails, and drop it."""

    async def fail() -> None:
        raise ValueError

    gc.disable()
    task = asyncio.create_task(fail())
    await asyncio.wait([task])
    seen.append("failed")
    await asyncio.sleep(0.1)
    seen.append("still there")
    del task
    gc.collect()
    seen.append("collected")
    await asyncio.sleep(0.1)
    seen.append("still there")


async def bridge(seen: list[str], handler) -> None:
    try:
        async with trio_asyncio.open_loop() as loop:
            if handler:
                loop.set_exception_handler(handler)
            await trio_asyncio.aio_as_trio(forget)(seen)
    except* ValueError:
        seen.append("ended by ValueError")


logging.disable()
plain: list[str] = []
bridged: list[str] = []
handled: list[str] = []
asyncio.run(forget(plain))
trio.run(bridge, bridged, None)
trio.run(bridge, handled, lambda loop, context: None)
print("asyncio:              ", "; ".join(plain))
print("trio-asyncio:         ", "; ".join(bridged))
print("with a handler of own:", "; ".join(handled))
expected = ["failed", "still there", "collected", "still there"]
sys.exit(0 if plain == handled == expected and bridged == [*expected[:3], "ended by ValueError"] else 1)
PYTHON
"$folder/venv/bin/python" "$folder/find.py"
