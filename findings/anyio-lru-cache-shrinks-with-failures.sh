#!/usr/bin/env bash
# anyio: each failed call of a function with lru_cache takes one of its places for good.
#
# Version:     anyio 4.16.0 with trio 0.35.0
# Expectation: as in functools, a call that raises is not cached and leaves the cache as it was. A cache of
#              four places holds four results after any number of failures.
# Behaviour:   the place is counted before the call and not given back. Once as many calls have failed as
#              there are places, the cache takes itself for full, and each new result drops the oldest one: it
#              holds one result. cache_info() says currsize 4 with nothing in it. cache_clear() alone ends
#              that. A call that is cancelled on its way is a failed one; the same key may fail each time.
# Met by:      a service that caches answers of another one, after 128 time-outs (the default maxsize) in the
#              weeks since its start: it asks anew each time, and no metric of the cache says why.
# Seen on:     2026-11-30
# Output seen: asyncio: a b c d twice: 4 calls; after 4 failures currsize 4, a b c d twice: 8 calls
#              trio:    a b c d twice: 4 calls; after 4 failures currsize 4, a b c d twice: 8 calls
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q anyio==4.16.0 trio==0.35.0
cat > "$folder/find.py" <<'PYTHON'
import sys

import anyio
from anyio.functools import lru_cache

PLACES = 4


async def find() -> tuple[int, int, int]:
    """Return the calls for four keys in turn, twice, and both numbers after four failures."""
    calls = 0

    @lru_cache(maxsize=PLACES)
    async def ask(key: str) -> str:
        nonlocal calls
        calls += 1
        await anyio.sleep(0)
        if key == "down":
            raise ConnectionError
        return key

    async def twice() -> int:
        nonlocal calls
        calls = 0
        for key in "abcdabcd":
            await ask(key)
        return calls

    before = await twice()
    ask.cache_clear()
    for _ in range(PLACES):
        try:
            await ask("down")
        except ConnectionError:
            pass
    return before, ask.cache_info().currsize, await twice()


seen = []
for backend in ["asyncio", "trio"]:
    seen.append(anyio.run(find, backend=backend))
    before, size, after = seen[-1]
    print(f"{backend + ':':8} a b c d twice: {before} calls; ", end="")
    print(f"after {PLACES} failures currsize {size}, a b c d twice: {after} calls")
sys.exit(0 if seen == [(4, 4, 8)] * 2 else 1)
PYTHON
"$folder/venv/bin/python" "$folder/find.py"
