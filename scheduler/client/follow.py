"""Follows a build on the wire to its report, for ``scheduler run`` and ``watch``.

Nothing here knows the service: any scheduler may publish the events and answer the questions.
"""

from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio
from attrs import define, field

from scheduler.bus import Bus, Message
from scheduler.client.ask import FORBIDDEN, Document, get_build, get_summary
from scheduler.client.lenient import objects, text
from scheduler.client.progress import Progress
from scheduler.client.repeating import ONCE, SILENT
from scheduler.client.submit import decode_object, stored_report, whole_report
from scheduler.client.timeline import FINISHED
from scheduler.client.view import News, View
from scheduler.definition.secrets.masking import Secrets
from scheduler.definition.subjects import EVENTS
from scheduler.definition.tokens import encode_token
from scheduler.errors import BusError, NotPermitted, SteeringError

FRAME = 0.25
"""Seconds between two updates of the view."""
ASK = 2.0
"""Seconds between two questions about the build, and the deadline of each answer, in seconds."""
_CATCH_UP = 5.0
"""Seconds to fetch a whole build, in pages; the view stands still meanwhile."""
_MISSED_AFTER = 5.0
"""Seconds without news after which a build that seems finished counts as reported: we missed its report."""
_SILENT_AFTER = 30.0
"""Seconds without news after a reconnect until the person is told."""
_SILENT = frozenset({"nobody", SILENT, "unreadable"})
"""Codes of errors which mean that no scheduler is there."""


class _Head(msgspec.Struct):
    """Part of a report that names its build."""

    id: str = ""


@define(eq=False)
class Following:
    """Messages about one build that the view has not shown yet."""

    build: str
    events: deque[tuple[Mapping[str, Any], float]] = field(factory=deque)
    """Messages with their arrival, Trio clock, seconds; running times count from there."""
    snapshots: deque[tuple[Document, float]] = field(factory=deque)
    """Answers with every component, and their times, Trio clock, seconds; they go before the events."""
    catching_up: bool = False
    """Whether such an answer is awaited; events are kept until it is there."""
    heard: float = float("-inf")
    """Arrival of the last event, Trio clock, seconds."""
    answering: bool = False
    """Whether a scheduler answered the last question; it then knows best whether the build is finished."""
    finished_since: float | None = None
    """Time of the first answer that the build is finished, Trio clock, seconds."""
    report: Mapping[str, Any] | None = None
    failed: bool = False
    ended: trio.Event = field(factory=trio.Event)

    def end(self, report: Mapping[str, Any], *, failed: bool) -> None:
        """Note that the build ended with this report."""
        self.report = report
        self.failed = failed
        self.ended.set()

    def note_status(self, answer: Mapping[str, Any]) -> None:
        """Note whether the build is finished, as a scheduler answered."""
        if answer.get("status") not in FINISHED:
            self.finished_since = None
        elif self.finished_since is None:
            self.finished_since = trio.current_time()

    def take_event(self, message: Message) -> None:
        """Keep the message if it has events of this build."""
        document = decode_object(message.data)
        if document is not None and document.get("build") == self.build:
            self.heard = trio.current_time()
            self.events.append((document, self.heard))

    def take_report(self, message: Message, *, failed: bool) -> None:
        """End with the message if it has the report of this build."""
        if self.ended.is_set():
            return
        try:
            # Reports of all builds with this action arrive here, and some of them are large.
            if msgspec.json.decode(message.data, type=_Head).id != self.build:
                return
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        self.end(decode_object(message.data) or {}, failed=failed)


@asynccontextmanager
async def open_following(bus: Bus, build: str, action: str) -> AsyncIterator[Following]:
    """Listen for a build's events and report; to be entered before the build is submitted or asked about.

    Raises:
        SteeringError: ``forbidden``: the broker's permissions do not allow it.
        BusError: the bus cannot be used.
    """
    following = Following(build)
    subscriptions = []
    try:
        for subject, handler in (
            (f"{EVENTS}{encode_token(build)}", following.take_event),
            (f"{action}.done", lambda message: following.take_report(message, failed=False)),
            (f"{action}.error", lambda message: following.take_report(message, failed=True)),
        ):
            try:
                subscription = await bus.subscribe(subject, handler)
            except NotPermitted as error:
                text = f"this user may not follow builds: {error.refusal}"
                raise SteeringError(FORBIDDEN, text) from None
            subscriptions.append(subscription)
        yield following
    finally:
        with trio.move_on_after(1, shield=True):
            for subscription in subscriptions:
                await subscription.unsubscribe()


async def show(bus: Bus, following: Following, progress: Progress, view: View) -> None:
    """Keep the view up to date until the build has ended; ``progress`` then holds the result.

    Every two seconds a scheduler is asked for what no event tells: the expected end and the limits reached.
    If events were missed (`Progress.behind`), it is asked for the whole build. Nothing waits for its answers.

    Messages published while our connection is down are lost to us. If by the last news the build is finished,
    a missing report is not waited for; otherwise the person is told.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_poll, bus, following, progress, name="questions")
        await _show(bus, following, progress, view)
        nursery.cancel_scope.cancel()
    await explain(bus, progress)


async def explain(bus: Bus, progress: Progress) -> None:
    """Ask for the critical path, which takes the whole build; leave it out if no answer comes."""
    with trio.move_on_after(ASK):
        try:
            progress.explain(await get_build(bus, progress.build, graph=True))
        except (SteeringError, BusError):
            return


async def _poll(bus: Bus, following: Following, progress: Progress) -> None:
    while True:
        if progress.behind:
            await _catch_up(bus, following)
        await trio.sleep(ASK)
        asked, answer, silent = trio.current_time(), None, True
        try:
            # Once: the next question follows soon.
            answer = await get_summary(bus, progress.build, ONCE)
            silent = False
        except SteeringError as error:
            # A refusal is an answer, also the broker's: it does not tell whether a scheduler is there.
            silent = error.code in _SILENT
        except BusError:
            answer = None
        if not silent:
            progress.silent = None
        elif progress.silent is None:
            progress.silent = max(asked, following.heard)
        progress.refresh(answer, trio.current_time())
        following.answering = answer is not None
        if answer is not None:
            following.note_status(answer)


async def _catch_up(bus: Bus, following: Following) -> None:
    following.catching_up = True
    try:
        with trio.move_on_after(_CATCH_UP):
            # The answer's times are those of its first page.
            asked = trio.current_time()
            answer = await get_build(bus, following.build)
            following.snapshots.append((answer, asked))
            following.note_status(answer)
    except (SteeringError, BusError):
        # The next question follows soon; until then events count as they come.
        return
    finally:
        following.catching_up = False


async def _show(bus: Bus, following: Following, progress: Progress, view: View) -> None:
    generation, connected = bus.generation, True
    heard = looked = trio.current_time()
    interrupted = told = False
    while not following.ended.is_set():
        with trio.move_on_after(FRAME):
            await following.ended.wait()
        now = trio.current_time()
        if bus.connected != connected:
            connected = bus.connected
            progress.away = None if connected else now
            progress.silent = None
            view.note("the broker is back" if connected else "the broker is away; waiting for it")
        if bus.generation != generation:
            generation, interrupted, told, heard = bus.generation, True, False, now
            progress.behind = True
        if following.events:
            heard = now
            progress.silent = None
        view.update(_drain(following, progress), now)
        if following.ended.is_set():
            break
        over = following.finished_since is not None and now - following.finished_since > ASK
        if (interrupted or over) and connected and now - looked > ASK:
            looked = now
            found = await stored_report(bus, following.build, progress.run)
            if found is not None:
                following.end(found.document, failed=found.failed)
                continue
        guessed = interrupted and not following.answering and now - heard > _MISSED_AFTER
        if over or (guessed and _seems_finished(progress)):
            failed = progress.status in {"errored", "cancelled"} or bool(progress.errors)
            view.note("its report was missed; this is what is known of it")
            progress.finish({"error": progress.error or _first_error(progress)}, now, failed=failed)
            return
        if interrupted and now - heard > _SILENT_AFTER and not told:
            told = True
            view.note(
                "no news since the broker came back; if the build has ended meanwhile, its report is lost"
            )
    report = await whole_report(bus, dict(following.report or {}))
    following.catching_up = False
    now = trio.current_time()
    news = _drain(following, progress)
    news += progress.finish(_shown(report, progress), now, failed=following.failed)
    view.update(news, now)


def _shown(report: Mapping[str, Any], progress: Progress) -> Mapping[str, Any]:
    """Mask the errors of a report for people: connectors may repeat secrets, and the report lists those."""
    if "omitted" in report and (heard := progress.error or _first_error(progress)):
        # Without its lists, the report does not tell the secrets; the scheduler's own answers have none.
        return {**report, "error": heard} if "error" in report else report
    changes = objects(report.get("changes"))
    errors = [change for change in changes if isinstance(change.get("error"), str)]
    if not errors and not isinstance(report.get("error"), str):
        return report
    secrets = Secrets.of_document(report)
    shown = {**report, "error": secrets.mask(text(report.get("error")))}
    if errors:
        masked = {id(change): {**change, "error": secrets.mask(change["error"])} for change in errors}
        shown["changes"] = [masked.get(id(change), change) for change in changes]
    return shown


def _drain(following: Following, progress: Progress) -> list[News]:
    news: list[News] = []
    if following.catching_up:
        return news
    while following.snapshots:
        news += progress.snapshot(*following.snapshots.popleft())
    while following.events:
        news += progress.apply(*following.events.popleft())
    return news


def _seems_finished(progress: Progress) -> bool:
    if progress.errors:
        return not progress.running and not progress.retrying
    return 0 < progress.total <= progress.done


def _first_error(progress: Progress) -> str:
    for component, error in progress.errors.items():
        return f"{component}: {error}"
    return ""
