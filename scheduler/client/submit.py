"""Submits a build over the bus, and fetches its stored report.

Nothing here knows the service: any scheduler may answer. What gets no answer is submitted again, under the
build's id: a scheduler that has accepted it accepts the same content again, and that changes nothing.
"""

import random
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Literal

import msgspec
import trio
from attrs import evolve, frozen

from scheduler.bus import Bus
from scheduler.client.repeating import Pauses, request_again
from scheduler.definition.model import BUILD_ACTIONS
from scheduler.errors import (
    BusError,
    JetStreamError,
    JetStreamUnavailable,
    MessageTooLarge,
    NoResponders,
)
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.objects import Objects
from scheduler.jetstream.streams import REPORTS, SUBJECT_HEADER, UPLOADS, report_subject

INTAKE_ACTIONS = frozenset(BUILD_ACTIONS)
"""Actions of a build; each is also the subject on which a scheduler takes such builds."""

PATIENCE: Final = 60.0
"""Seconds for a submission: the build may be large, its store slow, and the scheduler being restarted."""
_TRIES: Final[Pauses] = (2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds to wait for an answer after each try: 60 s in all."""
_SHUTTING_DOWN: Final = "shutting_down"
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 8.0
"""Seconds before a build is submitted again that was refused by a scheduler which ends."""
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
    repeated: bool = False
    """Whether it was sent several times: an earlier copy may have been accepted, and be finished by now."""


async def submit(
    bus: Bus,
    action: str,
    data: bytes,
    build: str = "",
    *,
    note: Callable[[str], None] = lambda _: None,
    headers: Mapping[str, str] | None = None,
) -> Verdict:
    """Submit a build on the intake subject ``action``, for a minute at most.

    A scheduler that ends refuses builds; they are submitted again until another one takes them. A build over
    the server's ``max_payload`` is put into the object store until it is accepted.

    Args:
        bus: the connection.
        action: the build's action.
        data: the build.
        build: its id.
        note: called once with a text for people where a scheduler that ends is to be waited for.
        headers: headers of the submission, such as a trace context.

    Raises:
        NoResponders: no scheduler listens.
        NotPermitted: this user may not submit builds.
        MessageTooLarge: the build is over ``max_payload``, and there is no object store; or this user may not
            use it, then the cause is NotPermitted.
        SteeringError: no answer came, with code ``silent``.
        BusError: the bus cannot be used.
    """
    try:
        return await _submit_until_taken(bus, action, data, headers, note)
    except MessageTooLarge as error:
        async with _uploaded(bus, data, error) as name:
            named = msgspec.json.encode({"id": build, "object": name})
            return await _submit_until_taken(bus, action, named, headers, note)


async def _submit_until_taken(
    bus: Bus,
    action: str,
    data: bytes,
    headers: Mapping[str, str] | None,
    note: Callable[[str], None],
) -> Verdict:
    """Submit a build, again while schedulers that end refuse it."""
    began = trio.current_time()
    verdict = await _submit_once(bus, action, data, headers)
    if verdict.code != _SHUTTING_DOWN:
        return verdict
    note(f"a scheduler is shutting down: waiting up to {PATIENCE:g} s for one that takes builds")
    pause = _FIRST_PAUSE
    with trio.move_on_at(began + PATIENCE):
        while verdict.code == _SHUTTING_DOWN:
            # Jitter: the builds that one scheduler has refused must not all come back at the same moment.
            await trio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(2 * pause, _LONGEST_PAUSE)
            # That there is none now: the only one may be started again.
            with suppress(NoResponders):
                verdict = evolve(await _submit_once(bus, action, data, headers), repeated=True)
    return verdict


async def _submit_once(bus: Bus, action: str, data: bytes, headers: Mapping[str, str] | None) -> Verdict:
    began = trio.current_time()
    message = await request_again(bus, action, data, _TRIES, headers)
    return evolve(_read(message.data), repeated=trio.current_time() - began >= _TRIES[0])


def _read(data: bytes) -> Verdict:
    """Read the answer to a submitted build."""
    try:
        answer = msgspec.json.decode(data)
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


@asynccontextmanager
async def _uploaded(bus: Bus, data: bytes, too_large: MessageTooLarge) -> AsyncIterator[str]:
    """Put a build into the object store while it is submitted, and yield the name of the object."""
    objects = Objects(JetStream(bus))
    name = f"{UPLOADS}{secrets.token_hex(8)}.json"
    try:
        await objects.put(name, data)
    except (JetStreamUnavailable, JetStreamError) as error:
        # It is worth knowing that this user may not use the store, but not that there is none.
        raise too_large from error.__cause__
    try:
        yield name
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
