"""Crash-loop protection: counts the processes that died while they took up a build, or that hung over it.

The counts stand in headers of each of a build's records, from the first time on. Such a build is *unproven*:
a process takes it up last, when all others have been resumed, and alone. One that keeps killing processes is
quarantined, until an operator releases it.
"""

import secrets
import time
from collections.abc import Callable
from typing import Final

from attrs import evolve
from msgspec.structs import replace

from scheduler.errors import JetStreamUnavailable, StoreError, UnreadableLog, WrongLastSequence
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.streams import LOG, log_subject
from scheduler.journal.events import Released
from scheduler.journal.orders import Order
from scheduler.journal.records import (
    ORDERS_HEADER,
    Headings,
    Status,
    compose,
    decode_record,
    encode_event,
    encode_order,
    headers_of,
    is_tombstone,
    orders_header,
    read_headers,
    read_orders,
)

UNPROVEN_LOADS: Final = 2
"""Processes in a row that may die while they take up several builds; then each of these is taken up alone."""
MOST_LOADS: Final = UNPROVEN_LOADS + 3
"""Processes in a row that may die before a build is quarantined; for the last three it is taken up alone.
Random kills hardly hit the same build three times, while a build that crashes the scheduler does so each
time."""
MOST_HANGS: Final = 3
"""Processes that may hang over a build before it is quarantined; the build is known for certain then."""
RELEASE: Final = "release"
"""Name of the writer of a record that releases a build."""
_ATTEMPTS = 5


def counts(headings: Headings | UnreadableLog) -> tuple[int, int]:
    """Return how many processes hung over a build, and how many in a row died while they took it up."""
    return (0, 0) if isinstance(headings, UnreadableLog) else (headings.hangs, headings.loads)


def is_unproven(headings: Headings | UnreadableLog) -> bool:
    """Return whether processes seem to have died of a build that is to be tried again all the same."""
    hangs, loads = counts(headings)
    return hangs < MOST_HANGS and loads < MOST_LOADS and (hangs > 0 or loads >= UNPROVEN_LOADS)


def why_left_alone(headings: Headings) -> str:
    """Return why a build is not taken up any more; empty where it is."""
    if headings.hangs >= MOST_HANGS:
        return f"{headings.hangs} processes hung over it"
    if headings.loads >= MOST_LOADS:
        return f"{headings.loads} processes in a row ended while they took it up"
    return ""


async def record_hang(js: JetStream, build: str) -> None:
    """Write into the log of a build that this process hangs over it, and is about to end.

    After that the process can write nothing more into the log.

    Raises:
        StoreError: there is no such log, or the build is finished.
        UnreadableLog: its last record cannot be read.
        BusError: JetStream could not be asked.
    """

    def hung(headings: Headings) -> Headings:
        if headings.status is Status.REPORTED:
            raise StoreError(f"{build} is finished")
        return evolve(headings, hangs=headings.hangs + 1)

    for attempt in range(1, _ATTEMPTS + 1):
        try:
            await _write(js, build, "watchdog", "hung", hung)
        except WrongLastSequence:
            # A record that the process had under way came in between.
            if attempt == _ATTEMPTS:
                raise
        else:
            return


async def release(js: JetStream, build: str, order: Order) -> None:
    """Release a quarantined build: write into its log that the next process may try again.

    What gets no answer is asked again: the id of the order in the last record tells whether it was written.

    Args:
        js: JetStream with the log.
        build: its id.
        order: order of the operator who wants it, kept in the log; its time is that of the release.

    Raises:
        StoreError: there is no such build, or no process died of it or hung over it, so that one may be
            writing to its log.
        UnreadableLog: its last record cannot be read.
        BusError: JetStream could not be asked.
    """

    def released(headings: Headings) -> Headings:
        if not why_left_alone(headings):
            raise StoreError(f"{build} is not one that schedulers died of: it needs no release")
        return evolve(headings, loads=0, hangs=0)

    kept = replace(order, time=time.time())
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            await _write(js, build, RELEASE, "release", released, encode_event(Released()), order=kept)
        except (JetStreamUnavailable, WrongLastSequence):
            # It may have been written, or be written behind our back.
            if attempt == _ATTEMPTS or not order.id:
                raise
        else:
            return


async def _write(
    js: JetStream,
    build: str,
    instance: str,
    word: str,
    change: Callable[[Headings], Headings],
    *events: bytes,
    order: Order | None = None,
) -> None:
    """Append one record to a log that this process does not hold, with other counts in its headers."""
    subject = log_subject(build)
    last = await js.last(LOG, subject)
    if last is None or is_tombstone(last.headers):
        raise StoreError(f"there is no build {build!r} in the log")
    if order is not None and order.id and order.id in {one.id for one in read_orders(last.headers)}:
        return
    headings, record = change(read_headers(last.headers)), decode_record(last.data)
    record_id = f"{word}-{secrets.token_hex(8)}"
    data = compose(
        n=record.n + 1,
        epoch=record.epoch,
        instance=instance,
        record_id=record_id,
        at=max(record.at, int(time.time() * 1_000)),
        position=record.position,
        events=list(events),
    )
    headers = headers_of(record_id, headings.status, headings.loads, headings.hangs)
    if order is not None:
        headers[ORDERS_HEADER] = orders_header([encode_order(order)])
    await js.publish(subject, data, expected=last.sequence, headers=headers)
