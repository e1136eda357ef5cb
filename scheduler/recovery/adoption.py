"""Late successes: replies to attempts that were given up, found among the captured replies."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import TypeAlias

import structlog
import trio
from attrs import frozen

from scheduler.definition.graph import Vertex
from scheduler.definition.limits import Limits
from scheduler.definition.reply_subjects import REPLY, Tokens, is_secret, parse
from scheduler.definition.template import Laborious
from scheduler.errors import InvalidJSON, TemplateError
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.reading import Delivered, read
from scheduler.journal.events import Started
from scheduler.journal.history import History
from scheduler.plan import Phase, Plan, Request, late_replies
from scheduler.plan.outcome import read_head, read_reply

_log = structlog.get_logger()

_LATE = 10.0
"""Seconds for looking at the replies captured since the end of a build."""

Render: TypeAlias = Callable[[Plan, Vertex], Awaitable[None]]
"""Renders a component that takes long, beside the loop."""


async def adopt_what_came_late(
    js: JetStream,
    streams: Mapping[str, str],
    plan: Plan,
    history: History,
    *,
    limits: Limits,
    render: Render,
) -> None:
    """Keep late successes beside the errors of a build, so that nothing is made twice.

    Args:
        js: JetStream, with the captured replies.
        streams: streams of the replies, by provider.
        plan: plan of the build, as it was at its end; `plan.adopted` returns what was found.
        history: history of its log.
        limits: limits on the JSON of replies.
        render: renders components that take long.

    Raises:
        BusError: they cannot be read.
    """
    if not plan.phases.within(Phase.ERRORED):
        return
    adoption = _Adoption(plan, Failures.of(plan, history), limits, render)
    with trio.move_on_after(_LATE) as late:
        for provider, stream in streams.items():
            place = history.since_failures.of(provider)
            known = await js.get(stream, place.sequence) if place.sequence else None
            there = known is not None and known.time == place.time
            replies = read(js, stream, start=place.sequence + 1 if there else 1)
            async with aclosing(replies) as batches:
                async for batch in batches:
                    for reply in batch:
                        await adoption.look_at(reply)
                    await trio.lowlevel.checkpoint()
    if late.cancelled_caught:
        _log.warning("not all captured replies were looked at for late successes", build=plan.build.id)


@frozen
class Failures:
    """Reply subjects of the failed attempts of a build."""

    plan: Plan
    tokens: dict[str, int]
    """Vertices of the attempts, by token."""
    old_key: str
    """Beginning of the tokens from before the build had a secret key."""
    old: frozenset[int]
    """Vertices of the attempts with such tokens."""

    @staticmethod
    def of(plan: Plan, history: History) -> "Failures":
        """Find the reply subjects of the components that have failed, for each of their attempts."""
        tokens = Tokens(history.key) if is_secret(history.key) else None
        found: dict[str, int] = {}
        old = set()
        for count, step in enumerate(history.steps):
            if (
                not isinstance(step, Started)
                or plan.phases[plan.graph.index[step.component]] is not Phase.ERRORED
            ):
                continue
            vertex = plan.graph.index[step.component]
            if tokens is not None:
                found[tokens.of(step.attempt)] = vertex
            if tokens is None or count < history.old_steps:
                old.add(vertex)
        key = "" if history.accepted is None else history.accepted.key
        return Failures(plan, found, key, frozenset(old))

    def find(self, subject: str) -> tuple[Vertex, str | None] | None:
        """Return the component of a reply subject, and the provider that may answer there; None for others.

        A subject of the old form names no provider.
        """
        address = parse(subject)
        if address is None:
            return None
        if address.owner:
            vertex = self.tokens.get(address.token)
            return None if vertex is None else (vertex, address.provider)
        key, _, rest = address.token.partition("-")
        try:
            vertex = int(rest.partition("-")[0], 16)
        except ValueError:
            return None
        return (vertex, None) if key and key == self.old_key and vertex in self.old else None


class _Adoption:
    """Examines replies one by one."""

    def __init__(self, plan: Plan, failures: Failures, limits: Limits, render: Render) -> None:
        self._plan = plan
        self._failures = failures
        self._limits = limits
        self._render = render
        self._requests: dict[Vertex, Request | None] = {}

    async def look_at(self, reply: Delivered) -> None:
        """Adopt a reply if it is a success of a component that has failed."""
        plan = self._plan
        provider: str | None = None
        suffix: str | None = None
        try:
            if reply.subject.startswith(REPLY):
                found = self._failures.find(reply.subject)
                if found is None:
                    return
                vertex, provider = found
            else:
                head = read_head(reply.data)
                if head is None or head[0] != plan.build.id or head[1] not in plan.graph.index:
                    return
                vertex, suffix = plan.graph.index[head[1]], reply.subject.rpartition(".")[2]
            if vertex >= len(plan.phases) or plan.phases[vertex] is not Phase.ERRORED:
                return
            outcome = read_reply(reply.data, suffix, self._limits)
        except InvalidJSON:
            return
        if outcome is None:
            return
        if vertex not in self._requests:
            # Once, however many replies there are to it.
            self._requests[vertex] = await self._request(vertex)
        request = self._requests[vertex]
        if request is None or (provider is not None and request.provider != provider):
            return
        if suffix is None or reply.subject.startswith(f"{request.subject}."):
            late_replies.adopt(plan, request, outcome)

    async def _request(self, vertex: Vertex) -> Request | None:
        """Return the request of a component as it would be now; None where that cannot be told."""
        plan = self._plan
        await trio.lowlevel.checkpoint()
        try:
            return plan.requests.make(vertex)
        except Laborious:
            await self._render(plan, vertex)
        except TemplateError:
            return None
        try:
            return plan.requests.make(vertex)
        except TemplateError:
            return None
        finally:
            plan.requests.let_go(vertex)
