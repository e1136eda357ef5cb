"""``scheduler export BUILD``: the log of a build, as JSON lines.

Secrets are masked, unless ``--secrets`` is given. Then everything is shown as stored, including what this
version cannot read: that may be the very reason to look into a log.
"""

import base64
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any

import trio
from attrs import evolve

from scheduler.bus import Bus
from scheduler.client.lenient import objects as objects_of
from scheduler.commands.asking import option
from scheduler.commands.flags import (
    BROKER_DEFAULTS,
    QUIET_LOG_DEFAULTS,
    BrokerFlags,
    QuietLogFlags,
    settings_of,
)
from scheduler.commands.parameters import BuildId
from scheduler.commands.reaching import reach
from scheduler.commands.saying import complain
from scheduler.commands.session import configure_log, run_async, until_signal, with_parts
from scheduler.definition.limits import DEFAULT_LIMITS
from scheduler.definition.secrets.masking import Secrets
from scheduler.definition.secrets.names import MASK
from scheduler.definition.strictjson import Raw, decode, encode, split_list, split_object
from scheduler.errors import BusError, InvalidJSON, StreamNotFound
from scheduler.jetstream.answers import format_time
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.consumers import Delivered
from scheduler.jetstream.objects import Objects
from scheduler.jetstream.reading import read
from scheduler.jetstream.streams import LOG, log_subject
from scheduler.journal.records import is_tombstone, read_orders
from scheduler.text import printable

_MOST_EVENT_BYTES = 1 << 30
_MOST_POINTER_BYTES = 4_096
_POINTER = b'"elsewhere"'
_KEY = b'"key"'
_KEYED = frozenset({"accepted", "rekeyed"})
"""Events with the key of a build's reply subjects."""
_AS_STORED = evolve(DEFAULT_LIMITS, max_depth=4 * DEFAULT_LIMITS.max_depth)
"""Bounds of a stored record, which is deeper than a build: a component is in an event, that in a record."""
_NAMES = ("event", "component", "attempt")
"""Members of an event that are not masked."""
_MASKED = "secrets are masked (***); --secrets shows them as stored"
_TOO_MANY = "texts are masked whole, as there are too many secrets; --secrets shows them as stored"


def export(
    build: BuildId,
    /,
    *,
    secrets: Annotated[bool, option("Show secrets as they are stored, not as ***.")] = False,
    broker: BrokerFlags = BROKER_DEFAULTS,
    log: QuietLogFlags = QUIET_LOG_DEFAULTS,
) -> int:
    """Print a build's log as JSON lines."""
    settings = reach(settings_of(broker, log))
    configure_log(settings)
    job = partial(_export, build, secrets)
    return run_async(partial(until_signal, partial(with_parts, settings, None, job), lambda: None))


async def _export(build: str, secrets: bool, bus: Bus) -> int:
    """Print the log; return 1 if there is none, or a part of it is missing."""
    name = printable(build)
    js = JetStream(bus)
    try:
        known = None if secrets else await read_secrets(js, build)
        records, missing = await read_out(js, build, _print, secrets=known)
    except StreamNotFound:
        complain(f"there is no log of build {name}: the broker has no stream {LOG}")
        return 1
    except BusError as error:
        complain(f"the log of build {name} cannot be read: {error}")
        return 1
    if not records:
        complain(f"there is no log of build {name}; a finished build is kept for as long as --keep says")
    for one in missing:
        complain(f"the log of build {name} is incomplete: there is no object {printable(one)}")
    if records and known is not None:
        complain(_TOO_MANY if known.full else _MASKED)
    return 0 if records and not missing else 1


async def _print(line: bytes) -> None:
    # The reader may be slow, and the connection has to be kept up meanwhile.
    await trio.to_thread.run_sync(_write, line, abandon_on_cancel=True)


def _write(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


async def read_secrets(js: JetStream, build: str) -> Secrets:
    """Collect the secrets of a build from its log.

    Raises:
        StreamNotFound: there are no logs at all.
        BusError: the log cannot be read.
    """
    secrets = Secrets()
    objects = Objects(js)
    async with aclosing(_records(js, build)) as records:
        async for one in records:
            try:
                record = decode(encode(await _whole(split_object(one.data), objects, [])), _AS_STORED)
            except InvalidJSON:
                continue
            for event in objects_of(record.get("events")):
                if isinstance(event.get("document"), dict):
                    secrets.add_build(event["document"])
                secrets.add({key: event[key] for key in event if key != "document"}, at_once=None)
                await trio.lowlevel.checkpoint()
    return secrets


async def read_out(
    js: JetStream,
    build: str,
    put: Callable[[bytes], Awaitable[None]],
    *,
    secrets: Secrets | None = None,
) -> tuple[int, list[str]]:
    """Hand the records of a build's log to ``put``, each as a line of JSON with its sequence and time.

    Events stored in objects are put in their places. A message that is not a JSON object is shown as
    ``data``, in base64. The key of the build's reply subjects is always masked.

    Args:
        js: the JetStream with the log.
        build: the build's id.
        put: called with one line, without its end.
        secrets: the values to mask; a message that cannot be read, and so not masked, is ``hidden``. None
            shows everything as stored.

    Returns:
        The number of records, and the names of missing objects; a reference to one of those is left as it
        is.

    Raises:
        StreamNotFound: there are no logs at all.
        BusError: the log cannot be read.
    """
    objects = Objects(js)
    count = 0
    missing: list[str] = []
    async with aclosing(_records(js, build)) as records:
        async for one in records:
            line = {"sequence": one.sequence, "time": format_time(one.time)}
            try:
                record = encode(await _whole(split_object(one.data), objects, missing))
                line["record"] = Raw(record) if secrets is None else _masked(record, secrets)
            except InvalidJSON:
                if secrets is None:
                    line["data"] = base64.b64encode(one.data).decode()
                else:
                    line["hidden"] = f"{len(one.data)} bytes that cannot be read, and so cannot be masked"
            if orders := [order.document() for order in read_orders(one.headers)]:
                line["orders"] = orders if secrets is None else _masked_orders(orders, secrets)
            # In JSON, a line can only end where a space is allowed.
            await put(encode(line).replace(b"\n", b" "))
            count += 1
    return count, missing


async def _records(js: JetStream, build: str) -> AsyncGenerator[Delivered, None]:
    async with aclosing(read(js, LOG, subjects=[log_subject(build)])) as batches:
        async for batch in batches:
            for one in batch:
                if not is_tombstone(one.headers):
                    yield one  # noqa: ASYNC119 - a caller that leaves early closes this one, too


def _masked(record: bytes, secrets: Secrets) -> Any:
    """Mask the secrets of a record; its ids and the names of its events stay."""
    read = decode(record, _AS_STORED)
    masked: Any = secrets.mask_document(read)
    shown: list[Any] = objects_of(masked.get("events"))
    for before, after in zip(objects_of(read.get("events")), shown, strict=True):
        after.update((key, before[key]) for key in _NAMES if isinstance(before.get(key), str))
    return masked


def _masked_orders(orders: list[dict[str, Any]], secrets: Secrets) -> list[dict[str, Any]]:
    """Mask the secrets in what operators have said."""
    texts = ("by", "claim", "reason")
    return [
        {name: secrets.mask(value, 0) if name in texts else value for name, value in order.items()}
        for order in orders
    ]


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
    """Mask the key of the build's reply subjects: with it, anybody could answer for any connector."""
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
    """Return the name of the object that holds an event; None for an event stored in the record."""
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
