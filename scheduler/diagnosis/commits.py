"""How long a commit takes on this broker: compare-and-set appends to a throw-away stream like the log's."""

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
"""Seconds by which clocks may differ before that is worth a word."""
_SYNCED, _UNSYNCED = 1.6, 1.25
"""How many times as long as in memory an append to a file takes that is on the disk, and one that is not."""
_GOODBYE = 5.0


@frozen
class Timing:
    """What a number of appends took, one after the other."""

    seconds: tuple[float, ...]
    """Each, in order of size."""
    offset: float
    """The server's clock minus ours, in seconds."""
    error: float
    """What that may be off by, either way."""

    def at(self, share: float) -> float:
        """The seconds that this share of them kept within."""
        return self.seconds[min(math.ceil(share * len(self.seconds)), len(self.seconds)) - 1]

    @property
    def rate(self) -> float:
        """Appends in a second."""
        return len(self.seconds) / sum(self.seconds)


@asynccontextmanager
async def _throwaway(js: JetStream, storage: str, replicas: int) -> AsyncIterator[str]:
    """A stream for as long as the context lasts; gives the name of its cluster, if it is in one."""
    # What an earlier doctor left who was killed.
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
        answer = await js.call(f"STREAM.CREATE.{DOCTOR}", config)
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
        # Of all of them the fastest tells the time best: it was stored somewhere between leaving and answer.
        best = min(best, (seconds, before, sequence))
    seconds, before, sequence = best
    stored = await js.get(DOCTOR, sequence)
    half = seconds / 2
    offset = math.nan if stored is None else (stored.time - before) / 1e9 - half
    return Timing(tuple(sorted(taken)), offset, half)


async def check_commits(diagnosis: Diagnosis, js: JetStream, replicas: int) -> None:
    """Measure, and say what that means for replicas, disk and clocks; the stream is removed in any case.

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
                f"have {replicas} servers with JetStream in a cluster, or set --replicas 1",
            )
        else:
            diagnosis.warn("commits", f"cannot be tried: {error}", "see the broker's configuration")
        return
    except BusError as error:
        diagnosis.warn("commits", f"cannot be tried: {error}", "see permissions, and the broker's log")
        return
    _tell_replicas(diagnosis, cluster, replicas)
    _tell_commits(diagnosis, timing, memory, replicas)
    if memory is not None:
        _tell_disk(diagnosis, timing.at(0.25) / memory.at(0.25))
    _tell_clock(diagnosis, timing)


async def _in_memory(js: JetStream, replicas: int) -> Timing | None:
    """The same without a disk, where the account may have such a stream."""
    try:
        async with _throwaway(js, "memory", replicas):
            return await _measure(js, COUNT // 2)
    except JetStreamError as error:
        if error.err_code in _TOO_MANY_REPLICAS:
            raise
        return None


def _tell_replicas(diagnosis: Diagnosis, cluster: str, replicas: int) -> None:
    if replicas > 1:
        diagnosis.ok("replicas", f"{replicas} servers of cluster {cluster!r} keep what is stored")
    elif cluster:
        diagnosis.warn(
            "replicas",
            f"one server alone keeps what is stored, although there is a cluster, {cluster!r}: builds wait"
            " while it is down, and are lost with its disk",
            "--replicas 3; for streams that are there already as well: nats stream edit NAME --replicas=3;"
            f" but {REPLIES}, while no build runs, is removed (nats stream rm) and made again",
        )
    else:
        diagnosis.note(
            "replicas",
            "one server keeps what is stored: builds are lost with its disk",
            "where that matters: a cluster of three, and --replicas 3",
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
        f" {timing.rate:,.0f}/s, of {len(timing.seconds)}. Each step of a chain costs one"
    )
    if timing.at(0.5) > _SLOW:
        diagnosis.warn("commits", text, "a faster disk, or servers that are nearer to each other")
    else:
        diagnosis.ok("commits", text)


def _tell_disk(diagnosis: Diagnosis, ratio: float) -> None:
    cure = "sync_interval: always, in the `jetstream` block of each server's configuration"
    text = f"a commit takes {ratio:.1f} times as long as one in memory"
    if ratio >= _SYNCED:
        diagnosis.ok("disk", f"{text}: it seems to be on the disk before it is acknowledged")
    elif ratio <= _UNSYNCED:
        diagnosis.warn(
            "disk",
            f"{text}: it seems to be acknowledged before it is on the disk. A power failure may then take two"
            " minutes of acknowledged records with it",
            cure,
        )
    else:
        diagnosis.note(
            "disk", f"{text}: whether it is on the disk before it is acknowledged cannot be told", cure
        )


def _tell_clock(diagnosis: Diagnosis, timing: Timing) -> None:
    if math.isnan(timing.offset):
        return
    difference, error = timing.offset * 1e3, timing.error * 1e3
    diagnosis.facts["clock"] = {"difference_ms": round(difference, 3), "error_ms": round(error, 3)}
    way = "ahead of" if difference > 0 else "behind"
    text = f"the broker's is {abs(difference):,.1f} ms {way} ours (give or take {error:.1f} ms)"
    if abs(timing.offset) - timing.error > _CLOCK:
        diagnosis.warn(
            "clock",
            f"{text}: after a restart elsewhere, timeouts are off by as much",
            "synchronise the clocks of all hosts (NTP)",
        )
    else:
        diagnosis.ok("clock", text)
