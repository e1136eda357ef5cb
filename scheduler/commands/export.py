"""``scheduler export BUILD``: the log of a build, as JSON lines.

It shows what stands there, also what this version cannot make anything of: whoever looks into a log may be
looking for just that.
"""

import base64
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any

import trio
from cyclopts import Parameter

from scheduler.bus import Bus
from scheduler.commands.flags import (
    BROKER_DEFAULTS,
    QUIET_LOG_DEFAULTS,
    BrokerFlags,
    QuietLogFlags,
    settings_of,
)
from scheduler.commands.session import complain, run_async, until_signal, with_parts
from scheduler.errors import BusError, InvalidJSON, StreamNotFound
from scheduler.jetstream.api import JetStream, format_time
from scheduler.jetstream.objects import Objects
from scheduler.jetstream.reading import read
from scheduler.jetstream.streams import LOG, log_subject
from scheduler.log import configure_logging
from scheduler.records import is_tombstone
from scheduler.secretnames import MASK
from scheduler.strictjson import Raw, decode, encode, split_list, split_object
from scheduler.text import printable

_MOST_EVENT_BYTES = 1 << 30
_MOST_POINTER_BYTES = 4_096
_POINTER = b'"elsewhere"'
_KEY = b'"key"'
_KEYED = frozenset({"accepted", "rekeyed"})
"""The events that say what a build's reply subjects are made with."""

BuildId = Annotated[str, Parameter(help="The build's id.")]


def export(
    build: BuildId,
    /,
    *,
    broker: BrokerFlags = BROKER_DEFAULTS,
    log: QuietLogFlags = QUIET_LOG_DEFAULTS,
) -> int:
    """Print a build's log as JSON lines."""
    settings = settings_of(broker, log)
    configure_logging(settings.log_level, settings.log_format)
    job = partial(_export, build)
    return run_async(partial(until_signal, partial(with_parts, settings, None, job), lambda: None))


async def _export(build: str, bus: Bus) -> int:
    """Print it; 1 where there is none, or where a part of it is missing."""
    name = printable(build)
    try:
        records, missing = await read_out(JetStream(bus), build, _print)
    except StreamNotFound:
        complain(f"there is no log of build {name}: the broker has no stream {LOG}")
        return 1
    except BusError as error:
        complain(f"the log of build {name} cannot be read: {error}")
        return 1
    if not records:
        complain(f"there is no log of build {name}; a finished build is kept for as long as --keep says")
    for one in missing:
        complain(f"the log of build {name} is not whole: there is no object {printable(one)}")
    return 0 if records and not missing else 1


async def _print(line: bytes) -> None:
    # Whoever reads it may be slow, and the connection is to be kept up meanwhile.
    await trio.to_thread.run_sync(_write, line, abandon_on_cancel=True)


def _write(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


async def read_out(
    js: JetStream, build: str, put: Callable[[bytes], Awaitable[None]]
) -> tuple[int, list[str]]:
    """Give the records of a build's log to ``put``, each as a line of JSON with its sequence and time.

    Events that are in objects are put in their places. What is no record, as far as JSON goes, is shown as
    ``data``, in base64. The key of the build's reply subjects is masked, whoever asks.

    Args:
        js: where the log is.
        build: the build's id.
        put: takes one line, without its end.

    Returns:
        How many records there are, and the names of objects that are not there; what points to one of
        those is left as it stands.

    Raises:
        StreamNotFound: there are no logs at all.
        BusError: it cannot be read.
    """
    objects = Objects(js)
    records = 0
    missing: list[str] = []
    async with aclosing(read(js, LOG, subjects=[log_subject(build)])) as batches:
        async for batch in batches:
            for one in batch:
                if is_tombstone(one.headers):
                    continue
                line = {"sequence": one.sequence, "time": format_time(one.time)}
                try:
                    record = encode(await _whole(split_object(one.data), objects, missing))
                except InvalidJSON:
                    line["data"] = base64.b64encode(one.data).decode()
                else:
                    line["record"] = Raw(record)
                # In JSON the end of a line can only be where a space can be.
                await put(encode(line).replace(b"\n", b" "))
                records += 1
    return records, missing


async def _whole(record: dict[str, Raw], objects: Objects, missing: list[str]) -> dict[str, Any]:
    events = record.get("events")
    if events is None or not any(mark in bytes(events) for mark in (_POINTER, _KEY)):
        return record
    whole = split_list(events)
    for index, event in enumerate(whole):
        name = _object_of(event)
        if name is None:
            whole[index] = _without_key(event)
            continue
        data = await objects.get(name, most=_MOST_EVENT_BYTES)
        if data is None:
            missing.append(name)
        else:
            split_object(data)
            whole[index] = _without_key(Raw(data))
    return {**record, "events": whole}


def _without_key(event: Raw) -> Raw:
    """An event without what the build's reply subjects are made with: who has it can answer for anybody."""
    if _KEY not in bytes(event):
        return event
    try:
        members = split_object(bytes(event))
        if decode(members["event"]) not in _KEYED:
            return event
    except (InvalidJSON, KeyError):
        return event
    return Raw(encode({**members, "key": MASK}))


def _object_of(event: Raw) -> str | None:
    """The name of the object that an event is in; None for an event that stands here."""
    if len(memoryview(event)) > _MOST_POINTER_BYTES:
        return None
    try:
        members = split_object(bytes(event))
        if decode(members["event"]) != "elsewhere":
            return None
        name = decode(members["object"])
    except (InvalidJSON, KeyError):
        return None
    return name if isinstance(name, str) else None
