"""Answers the verbs that change a build, each when the change is persisted."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, TypeAlias, TypeVar

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from scheduler.control import verbs
from scheduler.control.finder import vertex_of
from scheduler.control.parts import Parts
from scheduler.control.registry import Verbs
from scheduler.control.verbs import Done
from scheduler.errors import Refused
from scheduler.journal.events import Event
from scheduler.journal.orders import Order
from scheduler.plan import Plan, steering
from scheduler.supervision.explainer import Seen

COMMANDS: Final[Verbs[Parts]] = Verbs()

_Request = TypeVar("_Request", bound=verbs.Command)
_Act: TypeAlias = Callable[[Parts, _Request, Order], Awaitable[Done]]


def _once(request: type[_Request]) -> Callable[[_Act[_Request]], _Act[_Request]]:
    """Register the decorated function as the one that carries out these orders, each once."""

    def decorate(act: _Act[_Request]) -> _Act[_Request]:
        async def carry_out(parts: Parts, request: _Request, order: Order) -> Done:
            return await parts.orders.carry_out(request, order, partial(act, parts, request, order))

        COMMANDS.register(request)(carry_out)
        return act

    return decorate


@_once(verbs.Cancel)
async def cancel(parts: Parts, request: verbs.Cancel, order: Order) -> Done:
    """Start nothing more in a build; with ``now``, stop waiting for what is in flight."""
    commands, seen = await parts.builds.steer(request.id, order)
    order = _now(order, seen)
    return _done(seen, await commands.cancel(now=request.now, reason=order.reason, order=order))


@_once(verbs.Pause)
async def pause(parts: Parts, request: verbs.Pause, order: Order) -> Done:
    """Start nothing new in a build for now."""
    commands, seen = await parts.builds.steer(request.id, order)
    return _done(seen, await commands.pause(_now(order, seen)))


@_once(verbs.Resume)
async def resume(parts: Parts, request: verbs.Resume, order: Order) -> Done:
    """Resume a paused build."""
    commands, seen = await parts.builds.steer(request.id, order)
    return _done(seen, await commands.resume(_now(order, seen)))


@_once(verbs.Retry)
async def retry_failed(parts: Parts, request: verbs.Retry, order: Order) -> Done:
    """Send again what failed, in a new run if the build is finished."""
    if request.start is not None and request.component not in {None, request.start}:
        raise Refused("invalid", "from: instead of another component, not beside it")
    if request.now and (request.component is None or request.start is not None):
        raise Refused("invalid", "now: with one component, whose attempt is given up")
    one, behind = request.component or request.start, request.start is not None
    if await parts.builds.keeps_running(request.id):
        commands, seen = await parts.builds.steer(request.id, order)
        vertex = None if one is None else vertex_of(seen.plan, one)
        if request.now and vertex is not None:
            order = _now(order, seen)
            return _done(seen, *await commands.retry_now(vertex, reason=order.reason, order=order))
        text, components = await commands.retry(vertex, behind=behind, order=_now(order, seen))
        return _done(seen, text, components)
    said: list[tuple[str, int]] = []

    def decide(plan: Plan) -> Sequence[Event]:
        vertex = None if one is None else vertex_of(plan, one)
        events, text, components = steering.retry_told(plan, vertex, behind=behind)
        said.append((text, components))
        return events

    seen = await parts.builds.reopen(request.id, decide, order)
    text, components = said[-1]
    return _done(seen, f"run {seen.plan.state.run} begins: {text}", components)


@_once(verbs.Skip)
async def skip(parts: Parts, request: verbs.Skip, order: Order) -> Done:
    """Complete a component with an output that is given, in a new run if the build is finished."""
    output = request.output or {}
    if await parts.builds.keeps_running(request.id):
        commands, seen = await parts.builds.steer(request.id, order)
        vertex = vertex_of(seen.plan, request.component)
        return _done(seen, await commands.supply(vertex, output, _now(order, seen)), 1)
    said: list[str] = []

    def decide(plan: Plan) -> Sequence[Event]:
        vertex = vertex_of(plan, request.component)
        events = steering.supply(plan, vertex, output)
        said.append(steering.supplied(plan, vertex))
        return events

    seen = await parts.builds.reopen(request.id, decide, order)
    return _done(seen, f"run {seen.plan.state.run} begins: {said[-1]}", 1)


@_once(verbs.Approve)
async def approve(parts: Parts, request: verbs.Approve, order: Order) -> Done:
    """Complete a gate."""
    commands, seen = await parts.builds.steer(request.id, order)
    vertex = vertex_of(seen.plan, request.component)
    return _done(seen, await commands.approve(vertex, _now(order, seen)), 1)


@_once(verbs.Reject)
async def reject(parts: Parts, request: verbs.Reject, order: Order) -> Done:
    """Fail a gate."""
    commands, seen = await parts.builds.steer(request.id, order)
    vertex = vertex_of(seen.plan, request.component)
    return _done(seen, await commands.reject(vertex, _now(order, seen)), 1)


@_once(verbs.Extend)
async def extend(parts: Parts, request: verbs.Extend, order: Order) -> Done:
    """Give an attempt that is in flight, or a gate, more time."""
    commands, seen = await parts.builds.steer(request.id, order)
    vertex = vertex_of(seen.plan, request.component)
    return _done(seen, await commands.extend(vertex, request.seconds, _now(order, seen)), 1)


@_once(verbs.Limit)
async def limit(parts: Parts, request: verbs.Limit, order: Order) -> Done:
    """Give a build other limits of its own."""
    commands, seen = await parts.builds.steer(request.id, order)
    return _done(seen, await commands.limit(request.limits, _now(order, seen)))


def _now(order: Order, seen: Seen) -> Order:
    """Return the order with the time of the build's clock."""
    return replace(order, time=seen.timings.clock())


def _done(seen: Seen, text: str, components: int | UnsetType = UNSET) -> Done:
    return Done(id=seen.plan.build.id, status=seen.status, text=text, components=components)
