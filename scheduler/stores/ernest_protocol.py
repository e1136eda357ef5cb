"""Requests to an Ernest service-store, and its answers (WIRE: "The Ernest store")."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec
import structlog
import trio

from scheduler.errors import BuildLost, StoreError
from scheduler.journal.events import Accepted, Document, Event, Retrying, Settled, Started, Withdrawn
from scheduler.runtime.pace import paced
from scheduler.stores import slices

SET_MAPPING = "build.set.mapping"

GET_MAPPING = "build.get.mapping"

SET_CHANGE = "build.set.mapping.change"

SET_COMPONENT = "build.set.mapping.component"

DELETE_COMPONENT = "build.del.mapping.component"

FIND = "build.find"

UNFINISHED = ("in_progress", "syncing", "awaiting_approval")
"""Statuses of unfinished builds in the store; the second is that of its imports and syncs, the third of
those that wait for a person."""

_ACTIONS = {
    "apply": "build.create",
    "destroy": "build.delete",
    "import": "build.import",
    "patch": "build.patch",
    "sync": "build.sync",
}
"""Action of a build, by the ``type`` that the store keeps beside it."""

MAX_UNFINISHED = 100_000
"""Most builds that `ErnestStore.unfinished` yields."""

MAX_TEXT = 1024
"""Most characters of the store's own words in an exception."""

SERIALIZE = "could not serialize"
"""Part of an error: another transaction was faster, and the request is to be repeated."""

LOST = ("record not found", "build not found")
"""Parts of an error: there is no such build. The second is in older versions of the service."""

_log = structlog.get_logger(__name__)

_Request: TypeAlias = tuple[str, Document]
"""Subject and document of a request."""


class _Head(msgspec.Struct):
    """The fields that are read of an entry in a find's answer; the build itself comes with it, unread."""

    id: Any = None
    status: Any = None
    type: Any = None


_decode_head = msgspec.json.Decoder(_Head).decode


def requests_for(build: str, event: Event) -> list[_Request]:
    """Return the requests that persist ``event``, in order."""
    match event:
        case Accepted(document=document):
            return [(SET_MAPPING, {"id": build, "mapping": document})]
        case Started() | Withdrawn() | Retrying():
            return [(SET_CHANGE, {**event.body, "service": build})]
        case Settled(body=body, upserts=upserts, deletes=deletes):
            return [
                (SET_CHANGE, {**body, "service": build}),
                *((SET_COMPONENT, {**component, "service": build}) for component in upserts),
                *((DELETE_COMPONENT, {**component, "service": build}) for component in deletes),
            ]
        case _:
            return []


def ask_again(data: bytes) -> str | None:
    """Return why a request is to be repeated: another transaction of the store got in its way."""
    # The bytes are looked at first: a build of megabytes is not to be parsed for this.
    if SERIALIZE.encode() not in data:
        return None
    try:
        text = _error_in(slices.members(data))
    except ValueError:
        return None  # a list of builds, or nonsense: either way a final answer
    return cut(text) if text is not None and SERIALIZE in text else None


def members_of(subject: str, data: bytes) -> dict[str, msgspec.Raw]:
    """Return the members of an answer.

    Raises:
        StoreError: it is not a JSON object.
    """
    try:
        return slices.members(data)
    except ValueError as error:
        raise StoreError(f"store: {subject} was answered with bad JSON: {error}") from error


def _error_in(members: Mapping[str, msgspec.Raw]) -> str | None:
    """Return the text of an answer's ``_error``; None without one. Any value of it is an error."""
    raw = members.get("_error")
    if raw is None:
        return None
    try:
        text = slices.value(raw)
    except ValueError:
        text = None
    if not isinstance(text, str):
        text = bytes(raw).decode(errors="replace")
    return text


def raise_error(subject: str, members: Mapping[str, msgspec.Raw]) -> None:
    """Raise the error of an answer, if it has one."""
    text = _error_in(members)
    if text is None:
        return
    if any(lost in text for lost in LOST):
        raise BuildLost(f"store: {subject}: {cut(text)}")
    raise StoreError(f"store: {subject}: {cut(text)}")


def check(subject: str, data: bytes) -> None:
    """Raise unless ``data`` is the answer to a change that was carried out: empty, or without error."""
    if data:
        raise_error(subject, members_of(subject, data))


async def found_builds(data: bytes, status: str, most: int) -> dict[str, str]:
    """Return the builds in the answer to a find, each with its action; empty where that is unknown."""
    # Go writes an empty list as null.
    if data.strip() in {b"", b"null"}:
        return {}
    if not data.lstrip().startswith(b"["):
        raise_error(FIND, members_of(FIND, data))
        raise StoreError(f"store: {FIND} was answered with an object, not with a list")
    try:
        rows = slices.elements(data)
    except ValueError as error:
        raise StoreError(f"store: {FIND} was answered with bad JSON: {error}") from error
    builds: dict[str, str] = {}
    bad = 0
    await trio.lowlevel.checkpoint()  # taking it apart was a slice of its own
    async for row in paced(rows, every=slices.BATCH):
        head = _head_of(row)
        if head is None or (head.status is not None and head.status != status):
            bad += 1
        elif len(builds) < most or head.id in builds:
            builds[head.id] = _ACTIONS.get(head.type, "") if isinstance(head.type, str) else ""
        else:
            _log.warning(
                "too many unfinished builds, the rest is left", limit=MAX_UNFINISHED, found=len(rows)
            )
            break
    if bad:
        _log.warning("entries that are no builds in progress were left out", entries=bad, found=len(rows))
    return builds


def _head_of(row: msgspec.Raw) -> _Head | None:
    """Return an entry of a find's answer; None where it names no build."""
    try:
        head = _decode_head(row)
    except (ValueError, RecursionError):
        return None
    return head if isinstance(head.id, str) and head.id else None


def cut(text: str) -> str:
    """Return ``text``, cut to the length of a message."""
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}... ({len(text)} characters)"
