"""Submitting a build over the bus and following it to its report, as ``scheduler run`` does.

Nothing here knows the service: it speaks the wire only, to whichever scheduler answers.
"""

import secrets
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import trio
from attrs import define, field, frozen

from scheduler.bus import Bus, Message
from scheduler.codec import encode_token
from scheduler.errors import BusError, JetStreamError, JetStreamUnavailable, MessageTooLarge
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.objects import Objects
from scheduler.jetstream.streams import REPORTS, SUBJECT_HEADER, UPLOADS, report_subject
from scheduler.progress import News, Progress, View

INTAKE_ACTIONS = frozenset(
    f"{prefix}.{verb}"
    for prefix in ("build", "service")
    for verb in ("create", "delete", "import", "patch", "sync")
)
"""The actions that are subjects as well, on which a scheduler takes builds."""

FRAME = 0.1
"""Seconds between two looks at what is new."""
_MISSED_AFTER = 5.0
"""Seconds after which a build that is over, but whose report did not come, counts as reported unseen."""
_SILENT_AFTER = 30.0
_LOOK = 2.0
"""Seconds between two looks for a stored report, and for each of them."""
_GOODBYE = 5.0
_MOST_REPORT = 1024 * 1024 * 1024


@frozen
class Answer:
    """What the scheduler says to a submitted build."""

    accepted: bool
    finished: bool = False
    """Whether it was taken before and is over: it does not run again, and its report was published then."""
    code: str = ""
    message: str = ""
    details: tuple[str, ...] = ()


class _Head(msgspec.Struct):
    """As much of a report as tells whose it is."""

    id: str = ""


async def submit(bus: Bus, action: str, data: bytes, build: str = "") -> Answer:
    """Hand a build in on the intake subject ``action``; the caller owns the deadline.

    One that is over the server's ``max_payload`` goes into the object store first, for as long as it takes
    to be accepted.

    Args:
        bus: the connection.
        action: the build's action.
        data: the build.
        build: its id.

    Raises:
        NoResponders: no scheduler listens.
        MessageTooLarge: the build is over ``max_payload``, and there is no object store.
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
        return Answer(accepted=False, code="unreadable", message="what answered is not a scheduler")
    if answer["status"] == "accepted":
        return Answer(accepted=True, finished=answer.get("finished") is True)
    said = answer.get("error")
    said = said if isinstance(said, dict) else {}
    details = said.get("details")
    return Answer(
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
    except (JetStreamUnavailable, JetStreamError):
        raise too_large from None
    try:
        return await bus.request(action, msgspec.json.encode({"id": build, "object": name}))
    finally:
        # The scheduler has its own copy by now, or does not want one.
        with trio.move_on_after(_GOODBYE, shield=True), suppress(BusError):
            await objects.delete(name)


async def stored_report(bus: Bus, build: str) -> tuple[dict[str, Any], bool] | None:
    """The report of a build as the scheduler stored it, and whether it failed; None where there is none yet.

    Raises:
        BusError: the bus cannot be used.
    """
    try:
        stored = await JetStream(bus, timeout=_LOOK).last(REPORTS, report_subject(build, "*"))
    except (JetStreamUnavailable, JetStreamError):
        return None
    if stored is None:
        return None
    failed = not stored.headers.get(SUBJECT_HEADER, "").endswith(".done")
    return await _whole(bus, _decode(stored.data) or {}), failed


async def _whole(bus: Bus, report: dict[str, Any]) -> dict[str, Any]:
    """The report itself, where what came only names the object that it is in."""
    name = report.get("object")
    if not isinstance(name, str):
        return report
    try:
        data = await Objects(JetStream(bus)).get(name, most=_MOST_REPORT)
    except (JetStreamUnavailable, JetStreamError):
        return report
    return report if data is None else _decode(data) or report


def _detail(item: Any) -> str:
    if isinstance(item, dict):
        place, message = item.get("place"), item.get("message")
        return f"{place}: {message}" if place else str(message)
    return str(item)


@define(eq=False)
class Following:
    """What has come in about one build and was not looked at yet."""

    build: str
    events: deque[Mapping[str, Any]] = field(factory=deque)
    report: Mapping[str, Any] | None = None
    failed: bool = False
    ended: trio.Event = field(factory=trio.Event)

    def end(self, report: Mapping[str, Any], *, failed: bool) -> None:
        """The build is over, with this report."""
        self.report = report
        self.failed = failed
        self.ended.set()

    def _take_event(self, message: Message) -> None:
        document = _decode(message.data)
        if document is not None and document.get("build") == self.build:
            self.events.append(document)

    def _take_report(self, message: Message, *, failed: bool) -> None:
        if self.ended.is_set():
            return
        try:
            # Reports of all builds with this action come in here, and some of them are large.
            if msgspec.json.decode(message.data, type=_Head).id != self.build:
                return
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        self.end(_decode(message.data) or {}, failed=failed)


def _decode(data: bytes) -> dict[str, Any] | None:
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


@asynccontextmanager
async def open_following(bus: Bus, build: str, action: str) -> AsyncIterator[Following]:
    """Listen for a build's events and its report; enter it before the build is submitted.

    Raises:
        BusError: the bus cannot be used.
    """
    following = Following(build)
    subscriptions = []
    try:
        for subject, handler in (
            (f"scheduler.event.{encode_token(build)}", following._take_event),  # noqa: SLF001 - its own factory
            (f"{action}.done", lambda message: following._take_report(message, failed=False)),  # noqa: SLF001
            (f"{action}.error", lambda message: following._take_report(message, failed=True)),  # noqa: SLF001
        ):
            subscription = await bus.subscribe(subject, handler)
            subscriptions.append(subscription)
        yield following
    finally:
        with trio.move_on_after(1, shield=True):
            for subscription in subscriptions:
                await subscription.unsubscribe()


async def show(bus: Bus, following: Following, progress: Progress, view: View) -> None:
    """Keep the view up to date until the build has ended; ``progress`` then says how.

    What is published while our connection is down is lost to us. Where the last news says that the build
    is over, a report that does not come is not waited for; where it doesn't, the person is told.
    """
    generation, connected = bus.generation, True
    heard = looked = trio.current_time()
    interrupted = told = False
    while not following.ended.is_set():
        with trio.move_on_after(FRAME):
            await following.ended.wait()
        now = trio.current_time()
        if bus.connected != connected:
            connected = bus.connected
            view.note("the broker is back" if connected else "the broker is away; waiting for it")
        if bus.generation != generation:
            generation, interrupted, told, heard = bus.generation, True, False, now
        if following.events:
            heard = now
        view.update(_drain(following, progress, now), now)
        if interrupted and not following.ended.is_set():
            if connected and now - looked > _LOOK:
                looked = now
                found = await stored_report(bus, following.build)
                if found is not None:
                    following.end(found[0], failed=found[1])
                    continue
            if now - heard > _MISSED_AFTER and _is_over(progress):
                view.note("the report was missed while the broker was away")
                progress.finish({"error": _first_error(progress)}, now, failed=bool(progress.errors))
                return
            if now - heard > _SILENT_AFTER and not told:
                told = True
                view.note(
                    "no news since the broker came back; if the build has ended meanwhile, its report is lost"
                )
    report = await _whole(bus, dict(following.report or {}))
    now = trio.current_time()
    news = _drain(following, progress, now)
    news += progress.finish(report, now, failed=following.failed)
    view.update(news, now)


def _drain(following: Following, progress: Progress, now: float) -> list[News]:
    news: list[News] = []
    while following.events:
        news += progress.apply(following.events.popleft(), now)
    return news


def _is_over(progress: Progress) -> bool:
    if progress.errors:
        return not progress.running
    return 0 < progress.total <= progress.done


def _first_error(progress: Progress) -> str:
    for component, text in progress.errors.items():
        return f"{component}: {text}"
    return ""
