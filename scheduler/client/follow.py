"""Following a build on the wire to its report, as ``scheduler run`` and ``watch`` do.

Nothing here knows the service: it hears what any scheduler publishes, and asks whichever answers.
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
from scheduler.client.progress import News, Progress, View
from scheduler.client.submit import decode_object, stored_report, whole_report
from scheduler.client.timeline import OVER
from scheduler.definition.secrets.masking import Secrets
from scheduler.definition.tokens import encode_token
from scheduler.errors import BusError, NotPermitted, SteeringError

FRAME = 0.25
"""Seconds between two looks at what is new."""
ASK = 2.0
"""Seconds between two questions how far the build is, and for the answer to each; also for the last one."""
_CATCH_UP = 5.0
"""Seconds for a whole build, in pages; meanwhile the picture stands still."""
_MISSED_AFTER = 5.0
"""Seconds after which a build that is over, but whose report did not come, counts as reported unseen."""
_SILENT_AFTER = 30.0
_SILENT = frozenset({"nobody", "unreadable"})
"""Codes by which no scheduler is there."""


class _Head(msgspec.Struct):
    """As much of a report as tells whose it is."""

    id: str = ""


@define(eq=False)
class Following:
    """What has come in about one build and was not looked at yet."""

    build: str
    events: deque[tuple[Mapping[str, Any], float]] = field(factory=deque)
    """Messages, and when they came: how long something runs counts from there."""
    snapshots: deque[tuple[Document, float]] = field(factory=deque)
    """Answers with every component, and when they came; they go before the events."""
    catching_up: bool = False
    """Whether such an answer is awaited: events are kept until it is there."""
    heard: float = float("-inf")
    """When the last event came in."""
    answering: bool = False
    """Whether a scheduler answered the last question: it then knows better whether the build is over."""
    over_since: float | None = None
    """When a scheduler first said that the build is over."""
    report: Mapping[str, Any] | None = None
    failed: bool = False
    ended: trio.Event = field(factory=trio.Event)

    def end(self, report: Mapping[str, Any], *, failed: bool) -> None:
        """The build is over, with this report."""
        self.report = report
        self.failed = failed
        self.ended.set()

    def hear(self, answer: Mapping[str, Any]) -> None:
        """Take in whether a scheduler says that the build is over."""
        if answer.get("status") not in OVER:
            self.over_since = None
        elif self.over_since is None:
            self.over_since = trio.current_time()

    def _take_event(self, message: Message) -> None:
        document = decode_object(message.data)
        if document is not None and document.get("build") == self.build:
            self.heard = trio.current_time()
            self.events.append((document, self.heard))

    def _take_report(self, message: Message, *, failed: bool) -> None:
        if self.ended.is_set():
            return
        try:
            # Reports of all builds with this action come in here, and some of them are large.
            if msgspec.json.decode(message.data, type=_Head).id != self.build:
                return
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        self.end(decode_object(message.data) or {}, failed=failed)


@asynccontextmanager
async def open_following(bus: Bus, build: str, action: str) -> AsyncIterator[Following]:
    """Listen for a build's events and its report; enter it before the build is submitted, or asked about.

    Raises:
        SteeringError: ``forbidden``: the broker's permissions do not allow it.
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
    """Keep the view up to date until the build has ended; ``progress`` then says how.

    A scheduler is asked every two seconds what no event tells (the expected end, the limits that are
    reached), and for everything where events were missed, which `Progress.behind` says. Nothing waits for
    its answers.

    What is published while our connection is down is lost to us. Where the last news says that the build
    is over, a report that does not come is not waited for; where it doesn't, the person is told.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_ask_again_and_again, bus, following, progress, name="questions")
        await _show(bus, following, progress, view)
        nursery.cancel_scope.cancel()
    await explain(bus, progress)


async def explain(bus: Bus, progress: Progress) -> None:
    """Ask for what only the whole build tells, the critical path; it is left out without an answer."""
    with trio.move_on_after(ASK):
        try:
            progress.explain(await get_build(bus, progress.build, graph=True))
        except (SteeringError, BusError):
            return


async def _ask_again_and_again(bus: Bus, following: Following, progress: Progress) -> None:
    while True:
        if progress.behind:
            await _catch_up(bus, following)
        await trio.sleep(ASK)
        asked, answer, silent = trio.current_time(), None, True
        with trio.move_on_after(ASK):
            try:
                answer = await get_summary(bus, progress.build)
                silent = False
            except SteeringError as error:
                # A refusal is an answer; and who may not ask learns nothing of it.
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
            following.hear(answer)


async def _catch_up(bus: Bus, following: Following) -> None:
    following.catching_up = True
    try:
        with trio.move_on_after(_CATCH_UP):
            # Its times are those of its first page.
            asked = trio.current_time()
            answer = await get_build(bus, following.build)
            following.snapshots.append((answer, asked))
            following.hear(answer)
    except (SteeringError, BusError):
        # Asked again a little later; until then what comes counts as it comes.
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
        over = following.over_since is not None and now - following.over_since > ASK
        if (interrupted or over) and connected and now - looked > ASK:
            looked = now
            found = await stored_report(bus, following.build, progress.run)
            if found is not None:
                following.end(found[0], failed=found[1])
                continue
        guessed = interrupted and not following.answering and now - heard > _MISSED_AFTER
        if over or (guessed and _is_over(progress)):
            failed = progress.status in {"errored", "cancelled"} or bool(progress.errors)
            view.note("its report was missed; this is what was heard of it")
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
    """A report for people: it says what connectors said, with secrets in it, and these it tells itself."""
    if "omitted" in report and (heard := progress.error or _first_error(progress)):
        # Without its lists it does not tell which words are secret; what the scheduler told us has none.
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


def _is_over(progress: Progress) -> bool:
    if progress.errors:
        return not progress.running and not progress.retrying
    return 0 < progress.total <= progress.done


def _first_error(progress: Progress) -> str:
    for component, error in progress.errors.items():
        return f"{component}: {error}"
    return ""
