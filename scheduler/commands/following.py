"""Submits a build and follows it to its end, for ``run`` and ``demo``."""

import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence

import trio
from attrs import evolve, field, frozen

from scheduler.bus import Bus
from scheduler.client.ask import get_summary
from scheduler.client.follow import ASK, Following, open_following, show
from scheduler.client.pages import page_of_build
from scheduler.client.progress import EarlierEnd, Progress
from scheduler.client.submit import Verdict, stored_report, submit
from scheduler.commands.saying import complain, say
from scheduler.definition.validation import Prepared
from scheduler.definition.values import Overlay
from scheduler.display import open_view
from scheduler.errors import BusError, MessageTooLarge, NoResponders, NotPermitted, SteeringError
from scheduler.text import count, printable
from scheduler.tracing.context import read_context

_TAKEN = {
    "finished": "ran before, with other content",
    "running": "is running, with other content",
}
"""Codes of a scheduler's refusals: another build has the id."""


@frozen
class Submission:
    """A build as it is to be submitted."""

    id: str
    action: str
    components: int
    """Number of its changes."""
    data: bytes = field(repr=False)

    @classmethod
    def of(cls, prepared: Prepared, data: bytes) -> "Submission":
        """Return the submission of a build that was read from ``data``."""
        build = prepared.build
        return cls(build.id, build.action, len(build.changes), data)

    def renamed(self, id_: str) -> "Submission":
        """Return the same build under another id."""
        return evolve(self, id=id_, data=Overlay(id_).apply(self.data))


async def run_build(
    bus: Bus,
    build: Submission,
    *,
    json: bool = False,
    renew: Callable[[Submission], Submission] | None = None,
    then: Callable[[Bus, str], Awaitable[int]] | None = None,
    servers: Sequence[str] = (),
) -> int:
    """Submit a build, show its progress, and return the exit code: 0 if it succeeded.

    Args:
        bus: the connection.
        build: the build.
        json: whether to print JSON lines.
        renew: function that returns the build under a new id. It is called, and that build is submitted, if a
            build of this id ran before, or another one has it. None: that is only said.
        then: called with the id of the build when it has ended, returns an exit code; if that is not 0, it
            replaces 0.
        servers: URLs of the broker, where the scheduler is to be asked for its page; else none.

    Raises:
        SteeringError: this user may not follow builds; nothing was submitted.
        BusError: the bus cannot be used.
    """
    async with open_following(bus, build.id, build.action) as following:
        answer = await _submit(bus, build)
        if answer is None:
            return 1
        if answer.finished and answer.repeated and following.heard > float("-inf"):
            # What was heard of it is that it ran just now: a copy of it was accepted, whose answer was lost.
            answer = evolve(answer, finished=False)
        if renew is None or not (answer.finished or answer.code in _TAKEN):
            if answer.accepted and servers and (page := await page_of_build(bus, build.id, servers)):
                # On standard error, since the output may be JSON.
                complain(f"its page is {page}")
            code = await _follow(bus, build, answer, following, json=json)
            return code if then is None or not answer.accepted else await then(bus, build.id) or code
    why = "ran before" if answer.accepted else _TAKEN[answer.code]
    build, before = renew(build), build
    # With JSON, every line on standard output has the id.
    (complain if json else say)(f"{printable(before.id)} {why}; this is submitted as {build.id}")
    return await run_build(bus, build, json=json, then=then, servers=servers)


async def _submit(bus: Bus, build: Submission) -> Verdict | None:
    """Submit a build; if there is no answer, print why and return None."""
    # As in CI systems, whose steps are spans, and whose names for it are in capitals.
    context = read_context(os.environ)
    headers = None if context is None else context.headers()
    try:
        return await submit(bus, build.action, build.data, build.id, note=complain, headers=headers)
    except NoResponders:
        complain(
            f"no scheduler answers on {build.action}: start one with `scheduler serve`, "
            "or add --embedded to run one in this process"
        )
    except NotPermitted as error:
        complain(f"this user may not submit builds: {error.refusal}")
    except MessageTooLarge as error:
        cure = "raise max_payload in the broker's configuration, or enable JetStream"
        if isinstance(error.__cause__, NotPermitted):
            cure = f"this user may not put larger ones into the object store, {error.__cause__.refusal}"
        complain(
            f"the build takes {error.size:,} bytes, over the broker's limit for a message of "
            f"{error.limit:,} bytes: {cure}"
        )
    except SteeringError as error:
        complain(f"{error}; the build may still run")
    return None


async def _follow(bus: Bus, build: Submission, answer: Verdict, following: Following, *, json: bool) -> int:
    """Show a submitted build to its end, or how it ended before; return the exit code."""
    if not answer.accepted:
        _complain_of_refusal(build, answer)
        return 1
    began, new = trio.current_time(), not answer.finished
    progress = Progress(build.id, build.action, began, total=build.components, informed=new)
    if not new:
        await _look_back(bus, following, progress)
    view = open_view(progress, json=json)
    view.start()
    try:
        await show(bus, following, progress, view)
    finally:
        view.stop()
    view.summary(trio.current_time())
    return 0 if progress.error is None else 1


def _complain_of_refusal(build: Submission, answer: Verdict) -> None:
    if answer.code in _TAKEN:
        cure = "submit this one with --fresh, or with another --id"
        complain(f"{printable(build.id)} {_TAKEN[answer.code]}; nothing was sent: {cure}")
        return
    # The message is the first of the details.
    details = [printable(detail) for detail in answer.details] or [printable(answer.message)]
    several = f"it has {count(len(details), 'problem')}:" if len(details) > 1 else details[0]
    complain(f"the scheduler rejected the build ({printable(answer.code)}): {several}")
    if len(details) > 1:
        sys.stderr.write("".join(f"  {detail}\n" for detail in details))


async def _look_back(bus: Bus, following: Following, progress: Progress) -> None:
    """Note how a build ended that ran before: a scheduler knows, or else its stored report tells."""
    ended, took = None, None
    with trio.move_on_after(ASK):
        try:
            answer = await get_summary(bus, progress.build)
        except (SteeringError, BusError):
            # Its log may be gone, or this user may not ask.
            pass
        else:
            progress.refresh(answer, trio.current_time())
    if progress.ended is not None:
        took = progress.elapsed(progress.ended)
        ended = time.time() - (trio.current_time() - progress.ended)
        following.end({"error": progress.error}, failed=progress.error is not None)
    # Not everybody who may submit builds may read reports.
    elif (report := await stored_report(bus, progress.build)) is not None:
        ended = report.time
        following.end(report.document, failed=report.failed)
    progress.earlier = EarlierEnd(ended, time.time(), took)
