"""Connectors of the kit that are killed again and again: ``python -m integration.dying URL FOLDER KILLS``.

The program loads everything once, and forks a process for each connector: a start takes milliseconds. Of four
processes with one record a random one is killed every `PERIOD`, and another one takes its place. When that
was done ``KILLS`` times it says so, and the last four stay until standard input ends.
"""

import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import trio

from scheduler.connectors import Connectors, Context
from scheduler.connectors.sqlite import SQLiteStore
from scheduler.log import configure_logging

PROCESSES = 4
PERIOD = 0.25
"""Seconds between two kills."""
WORK = 0.1
"""Seconds before a component is made, and after it."""
MADE = "made"
"""File with the keys of the components that were made, a line each, in the folder."""
RECORD = "record.db"


def serve(url: str, folder: Path) -> None:
    """Run one connector."""
    connectors = Connectors("aws", concurrency=10, store=SQLiteStore(folder / RECORD))
    made = folder / MADE

    @connectors.create("vpc")
    async def create(request: dict[str, object], context: Context) -> dict[str, object]:
        await trio.sleep(WORK)
        # As a cloud that can be asked for the token; it does not notice itself where two ask at a time.
        if context.key not in made.read_text().split():
            await trio.sleep(WORK)
            with made.open("a") as file:
                file.write(f"{context.key}\n")
        await trio.sleep(WORK)
        return request

    trio.run(connectors.run, url)


def fork(url: str, folder: Path, alive: tuple[int, int]) -> int:
    """Start a connector; it ends with this process, however that ends."""
    child = os.fork()
    if child:
        return child
    try:
        os.close(alive[1])
        threading.Thread(target=lambda: (os.read(alive[0], 1), os._exit(1)), daemon=True).start()
        serve(url, folder)
    finally:
        os._exit(1)


def main(url: str, folder: Path, kills: int) -> None:
    """Kill connectors, as the module says."""
    configure_logging("error", "json")
    luck = random.Random(1)
    alive = os.pipe()
    (folder / MADE).touch()
    children = [fork(url, folder, alive) for _ in range(PROCESSES)]
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(kills):
        time.sleep(PERIOD)
        child = children.pop(luck.randrange(PROCESSES))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        children.append(fork(url, folder, alive))
        print("kill", flush=True)
    print("killed", flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
