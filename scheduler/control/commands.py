"""Answers the verbs that change a build, each when the change is persisted."""

from collections.abc import Sequence
from typing import Final

from msgspec import UNSET, UnsetType

from scheduler.control import verbs
from scheduler.control.finder import vertex_of
from scheduler.control.parts import Parts
from scheduler.control.registry import Verbs
from scheduler.control.verbs import Done
from scheduler.errors import Refused
from scheduler.journal.events import Event
from scheduler.plan import Plan, steering
from scheduler.supervision.explainer import Seen

COMMANDS: Final[Verbs[Parts]] = Verbs()

_LONGEST_REASON: Final = 1_000
"""Characters of a reason that are kept."""


@COMMANDS.register(verbs.Cancel)
async def cancel(parts: Parts, request: verbs.Cancel) -> Done:
    """Start nothing more in a build; with ``now``, stop waiting for what is in flight."""
    commands, seen = await parts.builds.steer(request.id)
    return _done(
        seen, await commands.cancel(now=request.now, reason=(request.reason or "")[:_LONGEST_REASON])
    )


@COMMANDS.register(verbs.Pause)
async def pause(parts: Parts, request: verbs.Pause) -> Done:
    """Start nothing new in a build for now."""
    commands, seen = await parts.builds.steer(request.id)
    return _done(seen, await commands.pause())


@COMMANDS.register(verbs.Resume)
async def resume(parts: Parts, request: verbs.Resume) -> Done:
    """Resume a paused build."""
    commands, seen = await parts.builds.steer(request.id)
    return _done(seen, await commands.resume())


@COMMANDS.register(verbs.Retry)
async def retry_failed(parts: Parts, request: verbs.Retry) -> Done:
    """Send again what failed, in a new run if the build is finished."""
    if request.component is not None and request.start is not None:
        raise Refused("invalid", "from: instead of component, not beside it")
    one, behind = request.component or request.start, request.start is not None
    if await parts.builds.keeps_running(request.id):
        commands, seen = await parts.builds.steer(request.id)
        vertex = None if one is None else vertex_of(seen.plan, one)
        text, components = await commands.retry(vertex, behind=behind)
        return _done(seen, text, components)
    said: list[tuple[str, int]] = []

    def decide(plan: Plan) -> Sequence[Event]:
        vertex = None if one is None else vertex_of(plan, one)
        events, text, components = steering.retry_told(plan, vertex, behind=behind)
        said.append((text, components))
        return events

    seen = await parts.builds.reopen(request.id, decide)
    text, components = said[-1]
    return _done(seen, f"run {seen.plan.state.run} begins: {text}", components)


@COMMANDS.register(verbs.Skip)
async def skip(parts: Parts, request: verbs.Skip) -> Done:
    """Complete a component with an output that is given, in a new run if the build is finished."""
    output = request.output or {}
    if await parts.builds.keeps_running(request.id):
        commands, seen = await parts.builds.steer(request.id)
        return _done(seen, await commands.supply(vertex_of(seen.plan, request.component), output), 1)
    said: list[str] = []

    def decide(plan: Plan) -> Sequence[Event]:
        vertex = vertex_of(plan, request.component)
        events = steering.supply(plan, vertex, output)
        said.append(steering.supplied(plan, vertex))
        return events

    seen = await parts.builds.reopen(request.id, decide)
    return _done(seen, f"run {seen.plan.state.run} begins: {said[-1]}", 1)


@COMMANDS.register(verbs.Extend)
async def extend(parts: Parts, request: verbs.Extend) -> Done:
    """Give an attempt that is in flight more time."""
    commands, seen = await parts.builds.steer(request.id)
    return _done(seen, await commands.extend(vertex_of(seen.plan, request.component), request.seconds), 1)


@COMMANDS.register(verbs.Limit)
async def limit(parts: Parts, request: verbs.Limit) -> Done:
    """Give a build other limits of its own."""
    commands, seen = await parts.builds.steer(request.id)
    return _done(seen, await commands.limit(request.limits))


def _done(seen: Seen, text: str, components: int | UnsetType = UNSET) -> Done:
    return Done(id=seen.plan.build.id, status=seen.status, text=text, components=components)
