"""Submits a build over the bus, and fetches its stored report.

Nothing here knows the service: any scheduler may answer.
"""

import secrets
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal

import msgspec
import trio
from attrs import frozen

from scheduler.bus import Bus, Message
from scheduler.definition.model import BUILD_ACTIONS
from scheduler.errors import BusError, JetStreamError, JetStreamUnavailable, MessageTooLarge
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.objects import Objects
from scheduler.jetstream.streams import REPORTS, SUBJECT_HEADER, UPLOADS, report_subject

INTAKE_ACTIONS = frozenset(BUILD_ACTIONS)
"""Actions of a build; each is also the subject on which a scheduler takes such builds."""

_LOOK = 2.0
"""Seconds to wait for each answer about a stored report."""
_GOODBYE = 5.0
_MOST_REPORT = 1024 * 1024 * 1024


@frozen
class Verdict:
    """Answer of a scheduler to a submitted build."""

    accepted: bool
    finished: bool = False
    """Whether it was submitted before and is finished: it does not run again; its report is published."""
    code: str = ""
    message: str = ""
    details: tuple[str, ...] = ()


async def submit(bus: Bus, action: str, data: bytes, build: str = "") -> Verdict:
    """Submit a build on the intake subject ``action``; the caller owns the deadline.

    A build over the server's ``max_payload`` is put into the object store until it is accepted.

    Args:
        bus: the connection.
        action: the build's action.
        data: the build.
        build: its id.

    Raises:
        NoResponders: no scheduler listens.
        NotPermitted: this user may not submit builds.
        MessageTooLarge: the build is over ``max_payload``, and there is no object store; or this user may not
            use it, then the cause is NotPermitted.
        BusError: the bus cannot be used.
    """
    try:
        message = await bus.request(action, data)
    except MessageTooLarge as error:
        message = await _submit_by_object(bus, action, data, build, error)
    try:
        answer = msgspec.json.decode(message.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        answer = None
    if not isinstance(answer, dict) or answer.get("status") not in {"accepted", "rejected"}:
        return Verdict(accepted=False, code="unreadable", message="the answer is not that of a scheduler")
    if answer["status"] == "accepted":
        return Verdict(accepted=True, finished=answer.get("finished") is True)
    said = answer.get("error")
    said = said if isinstance(said, dict) else {}
    details = said.get("details")
    return Verdict(
        accepted=False,
        code=str(said.get("code", "")),
        message=str(said.get("message", "")),
        details=tuple(_detail(item) for item in details) if isinstance(details, list) else (),
    )


async def _submit_by_object(
    bus: Bus, action: str, data: bytes, build: str, too_large: MessageTooLarge
) -> Message:
    objects = Objects(JetStream(bus))
    name = f"{UPLOADS}{secrets.token_hex(8)}.json"
    try:
        await objects.put(name, data)
    except (JetStreamUnavailable, JetStreamError) as error:
        # It is worth knowing that this user may not use the store, but not that there is none.
        raise too_large from error.__cause__
    try:
        return await bus.request(action, msgspec.json.encode({"id": build, "object": name}))
    finally:
        # By now the scheduler has its own copy, or refused the build.
        with trio.move_on_after(_GOODBYE, shield=True), suppress(BusError):
            await objects.delete(name)


@frozen
class StoredReport:
    """Report of a run, as the broker keeps it."""

    document: Mapping[str, Any]
    failed: bool
    """Whether the run failed."""
    time: float
    """Time at which it was stored, by the broker's clock, in seconds since 1970."""


async def stored_report(bus: Bus, build: str, run: int | Literal["*"] = "*") -> StoredReport | None:
    """Fetch the stored report of one run of a build, or of its last one; None if there is none yet.

    Raises:
        BusError: the bus cannot be used.
    """
    try:
        stored = await JetStream(bus, timeout=_LOOK).last(REPORTS, report_subject(build, run))
    except (JetStreamUnavailable, JetStreamError):
        return None
    if stored is None:
        return None
    failed = not stored.headers.get(SUBJECT_HEADER, "").endswith(".done")
    report = await whole_report(bus, decode_object(stored.data) or {})
    return StoredReport(report, failed, stored.time / 1e9)


async def whole_report(bus: Bus, report: dict[str, Any]) -> dict[str, Any]:
    """Fetch the report itself if the message only names the object that holds it.

    Raises:
        BusError: the bus cannot be used.
    """
    name = report.get("object")
    if not isinstance(name, str):
        return report
    try:
        data = await Objects(JetStream(bus)).get(name, most=_MOST_REPORT)
    except (JetStreamUnavailable, JetStreamError):
        return report
    return report if data is None else decode_object(data) or report


def _detail(item: Any) -> str:
    if isinstance(item, dict):
        place, message = item.get("place"), item.get("message")
        return f"{place}: {message}" if place else str(message)
    return str(item)


def decode_object(data: bytes) -> dict[str, Any] | None:
    """Read a JSON object; return None if it is none."""
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
