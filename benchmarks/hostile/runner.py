"""Runs attacks, each on fresh processes, with healthy builds beside it."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing
from math import inf
from pathlib import Path
from time import perf_counter
from typing import Any

import psutil  # type: ignore[import-untyped]
from attrs import evolve

from benchmarks.crowd import ALL_BUILDS, ANY, crowd
from benchmarks.hostile import prober
from benchmarks.hostile.arena import Arena, Attack, entered
from benchmarks.hostile.broker import PASSWORD, User, broker, log_in
from benchmarks.hostile.judging import Ordeal, Stretch, Waits, within
from benchmarks.processes import (
    NO_SETTINGS,
    NotReadyError,
    Store,
    free_port,
    read_line,
    running,
    scratch,
    service,
)

_WARM_UP = 1.5
_ALONE = 3.0
_AFTER = 1.0
"""Seconds that healthy builds go on for after the attack."""
_READY = 60.0
_BUSY = 1.0
"""Seconds into the attack at which the process is told to end."""
_BETWEEN_SIGNALS = 0.3
_EXIT = 20.0
"""Seconds after which the process has not ended at all."""


class Fighter:
    """A scheduler's process, which may be replaced by another."""

    def __init__(self, url: str, folder: Path, store: Store, settings: Mapping[str, str]) -> None:
        self.url = url
        self.pid = 0
        self._folder = folder
        self._store = store
        self._settings = {"user": User.SCHEDULER, "password": PASSWORD, **settings}
        self._watched = folder / "watched.jsonl"
        self._program = ("benchmarks.hostile.watched", str(self._watched))
        self._stack = contextlib.ExitStack()

    async def start(self) -> float:
        """Start a process; gives the seconds until it takes builds."""
        began = perf_counter()
        started = service(
            self.url, self._folder, store=self._store, settings=self._settings, program=self._program
        )
        self.pid = self._stack.enter_context(started)
        client = await log_in(self.url, User.CONNECTOR)
        try:
            async with asyncio.timeout(_READY):
                # Nobody there: the broker says so at once.
                while not await _is_answered(client):  # noqa: ASYNC110 - of another process
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise NotReadyError(f"the scheduler is not ready: see {self._folder}") from None
        finally:
            await client.close()
        return perf_counter() - began

    def longest(self, since: float) -> list[Stretch]:
        """The longest stretch of each kind for which the loop was held, where it was worth a word."""
        lines = self._watched.read_text().splitlines() if self._watched.exists() else []
        found = [Stretch(**json.loads(line)) for line in lines]
        found = [stretch for stretch in found if stretch.ended >= since]
        return list({one.kind: one for one in sorted(found, key=lambda one: one.seconds)}.values())

    def signal(self, number: int) -> None:
        """Send the process a signal."""
        os.kill(self.pid, number)

    @property
    def over(self) -> bool:
        """Whether the process has ended; it is not waited for."""
        try:
            return bool(psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True

    async def ended(self) -> None:
        """Wait for the end of the process."""
        while not self.over:  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(0.005)

    def close(self) -> None:
        """End all processes."""
        if self.pid and not self.over:
            self.signal(signal.SIGKILL)
        self._stack.close()


async def _is_answered(client: Any) -> bool:
    with contextlib.suppress(Exception):
        await client.request("$SRV.PING.scheduler", b"", timeout=1)
        return True
    return False


@contextlib.contextmanager
def probes(url: str, folder: Path, pid: int) -> Iterator["subprocess.Popen[bytes]"]:
    """The process of the healthy builds."""
    command = [sys.executable, "-m", "benchmarks.hostile.prober", url, str(pid)]
    with running(command, log=folder / "prober.log", piped=True) as process:
        if read_line(process) != prober.READY:
            raise NotReadyError("the prober does not start")
        yield process


async def ordeal(attack: Attack, store: Store, viewers: int = 0) -> Ordeal:
    """Run one attack and measure.

    Args:
        attack: the attack.
        store: store of the scheduler.
        viewers: viewers of the page meanwhile: half of them look at all builds, half at those of the attack.
    """
    with scratch() as folder:
        async with AsyncExitStack() as stack:
            url = stack.enter_context(broker(folder, jetstream=store is Store.JETSTREAM))
            port = free_port()
            page = {"web": str(port)} if viewers else NO_SETTINGS
            fighter = Fighter(url, folder, store, {**attack.settings, **page})
            stack.callback(fighter.close)
            await fighter.start()
            if viewers:
                stack.enter_context(crowd(folder, port, viewers, ALL_BUILDS, ANY))
            process = stack.enter_context(probes(url, folder, fighter.pid))

            async def restart() -> float:
                fighter.signal(signal.SIGKILL)
                await fighter.ended()
                ready = await fighter.start()
                assert process.stdin is not None
                process.stdin.write(f"{fighter.pid}\n".encode())
                process.stdin.flush()
                return ready

            arena = await stack.enter_async_context(entered(Arena(url, store, restart)))
            found = await _measured(attack, store, arena, fighter, process)
            return evolve(found, viewers=viewers)


async def _measured(
    attack: Attack, store: Store, arena: Arena, fighter: Fighter, process: "subprocess.Popen[bytes]"
) -> Ordeal:
    await asyncio.sleep(_WARM_UP)
    start = perf_counter()
    await asyncio.sleep(_ALONE)
    quiet = perf_counter()
    async with _prepared(attack, arena) as course:
        arena.begin()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(attack.limit):
                await anext(course, None)
        ended, began = perf_counter(), arena.began
    outcome, sent = _told(arena.tally), arena.sent
    await asyncio.sleep(_AFTER)
    end = perf_counter()
    found = await _close(process)
    stretches = fighter.longest(began)
    await arena.close()
    exits = await _exit(attack, store, fighter) if attack.signalled else None
    samples = found["samples"]
    before = [size for at, size in found["resident"] if start <= at < quiet]
    meanwhile = [size for at, size in found["resident"] if began <= at]
    return Ordeal(
        attack.name,
        store,
        sent,
        outcome,
        ended - began,
        alone=Waits.of(within(samples["build"], start, quiet)),
        beside=Waits.of(within(samples["build"], began, end)),
        ping=Waits.of(within(samples["ping"], began, end)),
        echo=Waits.of(within(samples["echo"], began, end)),
        work=Waits.of(within(samples["work"], began, end) or [(began, None)]),
        grown=max(meanwhile) - max(before),
        waiting=arena.waiting,
        builds=arena.builds,
        exit=exits,
        excuse=attack.excuse,
        stretches=stretches,
        said=arena.said,
        faults=found["faults"],
    )


@contextlib.asynccontextmanager
async def _prepared(attack: Attack, arena: Arena) -> AsyncIterator[AsyncIterator[None]]:
    course = attack.course(arena)
    async with aclosing(course):  # type: ignore[type-var]
        await anext(course)
        yield course


async def _close(process: "subprocess.Popen[bytes]") -> dict[str, Any]:
    """What the probes found, when those that are outstanding are in."""
    assert process.stdin is not None
    process.stdin.close()
    line = await asyncio.to_thread(read_line, process, 2 * prober.PATIENCE)
    found: dict[str, Any] = json.loads(line)
    return found


async def _exit(attack: Attack, store: Store, fighter: Fighter) -> float:
    """Seconds from a second signal amid the attack to the end of the process."""
    async with (
        entered(Arena(fighter.url, store, fighter.start)) as arena,
        _prepared(attack, arena) as course,
    ):
        arena.begin()
        going = asyncio.ensure_future(_go_on(course))
        await asyncio.sleep(_BUSY)
        fighter.signal(signal.SIGTERM)
        await asyncio.sleep(_BETWEEN_SIGNALS)
        began = perf_counter()
        if not fighter.over:
            fighter.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_EXIT):
                await fighter.ended()
            return perf_counter() - began
        except TimeoutError:
            return inf
        finally:
            going.cancel()
            await asyncio.gather(going, return_exceptions=True)


async def _go_on(course: AsyncIterator[None]) -> None:
    await anext(course, None)


def _told(tally: Counter[str]) -> str:
    """Describe the outcomes, the most frequent first."""
    counts = [(word, count) for word, count in tally.most_common() if count > 0]
    if len(counts) == 1 and counts[0][1] == 1:
        return counts[0][0]
    return ", ".join(f"{count:,} {word}" for word, count in counts) or "nothing"
