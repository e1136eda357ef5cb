"""Measures commits on a broker: compare-and-set appends to a temporary stream like that of the log."""

import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio
from attrs import frozen

from scheduler.diagnosis import Diagnosis
from scheduler.diagnosis.permissions import DOCTOR, DOCTOR_SUBJECT
from scheduler.errors import BusError, JetStreamError, StreamNotFound
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.streams import REPLIES

COUNT = 200
_RECORD = b"x" * 400
_TOO_MANY_REPLICAS = frozenset({10005, 10074})
_SLOW = 0.1
_CLOCK = 1.0
"""Largest difference of clocks without a warning, in seconds."""
_SYNCED, _UNSYNCED = 1.6, 1.25
"""Ratios of an append to a file to one in memory: from the first on it seems synced, up to the second not."""
_GOODBYE = 5.0


@frozen
class Timing:
    """Timing of a number of appends, one after the other."""

    seconds: tuple[float, ...]
    """Duration of each append, in ascending order."""
    offset: float
    """Server's clock minus ours, in seconds."""
    error: float
    """Uncertainty of that difference, either way, in seconds."""

    def at(self, share: float) -> float:
        """Return the duration that this share of them does not exceed, in seconds."""
        return self.seconds[min(math.ceil(share * len(self.seconds)), len(self.seconds)) - 1]

    @property
    def rate(self) -> float:
        """Number of appends per second."""
        return len(self.seconds) / sum(self.seconds)


@asynccontextmanager
async def _throwaway(js: JetStream, storage: str, replicas: int) -> AsyncIterator[str]:
    """Make a stream while the context lasts; yield the name of its cluster, if any."""
    # A doctor that was killed may have left one.
    await _remove(js)
    config = {
        "name": DOCTOR,
        "subjects": ["scheduler.doctor.*"],
        "storage": storage,
        "num_replicas": replicas,
        "discard": "new",
        "max_msgs": 10 * COUNT,
        "max_bytes": 16 * 1024 * 1024,
    }
    try:
        # Awaited even when this is cancelled, up to its deadline: a server may carry out the removal that
        # follows before a creation that was sent first.
        with trio.CancelScope(shield=True):
            answer = await js.call(f"STREAM.CREATE.{DOCTOR}", config)
        await trio.lowlevel.checkpoint_if_cancelled()
        yield str((answer.get("cluster") or {}).get("name", ""))
    finally:
        with trio.move_on_after(_GOODBYE, shield=True):
            await _remove(js)


async def _remove(js: JetStream) -> None:
    with suppress(StreamNotFound):
        await js.call(f"STREAM.DELETE.{DOCTOR}")


async def _measure(js: JetStream, count: int) -> Timing:
    sequence = 0
    taken: list[float] = []
    best = (math.inf, 0, 0)
    for _ in range(count):
        before, began = time.time_ns(), time.perf_counter()
        sequence = (await js.publish(DOCTOR_SUBJECT, _RECORD, expected=sequence)).sequence
        seconds = time.perf_counter() - began
        taken.append(seconds)
        # The fastest append tells the time best: it was stored at some moment between request and answer.
        best = min(best, (seconds, before, sequence))
    seconds, before, sequence = best
    stored = await js.get(DOCTOR, sequence)
    half = seconds / 2
    offset = math.nan if stored is None else (stored.time - before) / 1e9 - half
    return Timing(tuple(sorted(taken)), offset, half)


async def check_commits(diagnosis: Diagnosis, js: JetStream, replicas: int) -> None:
    """Measure commits and judge replicas, disk and clocks; the stream is always removed.

    Raises:
        BusError: the bus cannot be used.
    """
    try:
        memory = await _in_memory(js, replicas)
        async with _throwaway(js, "file", replicas) as cluster:
            timing = await _measure(js, COUNT)
    except JetStreamError as error:
        if error.err_code in _TOO_MANY_REPLICAS:
            diagnosis.fail(
                "replicas",
                f"the broker cannot keep {replicas} replicas of a stream",
                f"run {replicas} servers with JetStream in a cluster, or set --replicas 1",
            )
        else:
            diagnosis.warn("commits", f"cannot be measured: {error}", "see the broker's configuration")
        return
    except BusError as error:
        diagnosis.warn("commits", f"cannot be measured: {error}", "see permissions, and the broker's log")
        return
    _tell_replicas(diagnosis, cluster, replicas)
    _tell_commits(diagnosis, timing, memory, replicas)
    if memory is not None:
        _tell_disk(diagnosis, timing.at(0.25) / memory.at(0.25))
    _tell_clock(diagnosis, timing)


async def _in_memory(js: JetStream, replicas: int) -> Timing | None:
    """Measure commits without a disk, if the account allows such a stream."""
    try:
        async with _throwaway(js, "memory", replicas):
            return await _measure(js, COUNT // 2)
    except JetStreamError as error:
        if error.err_code in _TOO_MANY_REPLICAS:
            raise
        return None


def _tell_replicas(diagnosis: Diagnosis, cluster: str, replicas: int) -> None:
    if replicas > 1:
        diagnosis.ok("replicas", f"{replicas} servers of cluster {cluster!r} store each build")
    elif cluster:
        diagnosis.warn(
            "replicas",
            f"a single server stores each build, although there is a cluster, {cluster!r}: builds wait"
            " while it is down, and are lost with its disk",
            "set --replicas 3, and for existing streams: nats stream edit NAME --replicas=3;"
            f" but remove {REPLIES} (nats stream rm) while no build runs: it is made again",
        )
    else:
        diagnosis.note(
            "replicas",
            "a single server stores the builds: they are lost with its disk",
            "if that matters, run a cluster of three, and set --replicas 3",
        )


def _tell_commits(diagnosis: Diagnosis, timing: Timing, memory: Timing | None, replicas: int) -> None:
    diagnosis.facts["commits"] = {
        "count": len(timing.seconds),
        "replicas": replicas,
        "p50_ms": round(timing.at(0.5) * 1e3, 3),
        "p99_ms": round(timing.at(0.99) * 1e3, 3),
        "per_second": round(timing.rate),
        "memory_p50_ms": None if memory is None else round(memory.at(0.5) * 1e3, 3),
    }
    text = (
        f"p50 {timing.at(0.5) * 1e3:.2f} ms, p99 {timing.at(0.99) * 1e3:.2f} ms; one after the other"
        f" {timing.rate:,.0f}/s, of {len(timing.seconds)}. Each step of a chain takes one commit"
    )
    if timing.at(0.5) > _SLOW:
        diagnosis.warn("commits", text, "use a faster disk, or servers that are nearer to each other")
    else:
        diagnosis.ok("commits", text)


def _tell_disk(diagnosis: Diagnosis, ratio: float) -> None:
    cure = "set sync_interval: always in the `jetstream` block of each server's configuration"
    text = f"a commit takes {ratio:.1f} times as long as one in memory"
    if ratio >= _SYNCED:
        diagnosis.ok("disk", f"{text}: it seems to be on disk before it is acknowledged")
    elif ratio <= _UNSYNCED:
        diagnosis.warn(
            "disk",
            f"{text}: it seems to be acknowledged before it is on disk. A power failure may then lose two"
            " minutes of acknowledged records",
            cure,
        )
    else:
        diagnosis.note("disk", f"{text}: it is unknown whether it is on disk before it is acknowledged", cure)


def _tell_clock(diagnosis: Diagnosis, timing: Timing) -> None:
    if math.isnan(timing.offset):
        return
    difference, error = timing.offset * 1e3, timing.error * 1e3
    diagnosis.facts["clock"] = {"difference_ms": round(difference, 3), "error_ms": round(error, 3)}
    way = "ahead of" if difference > 0 else "behind"
    text = f"the broker's is {abs(difference):,.1f} ms {way} ours (± {error:.1f} ms)"
    if abs(timing.offset) - timing.error > _CLOCK:
        diagnosis.warn(
            "clock",
            f"{text}: after a restart elsewhere, timeouts are off by as much",
            "synchronise the clocks of all hosts (NTP)",
        )
    else:
        diagnosis.ok("clock", text)
