"""Late successes: what was answered to attempts that were given up, found among the captured replies."""

from collections.abc import Mapping
from contextlib import aclosing

import structlog
import trio
from attrs import frozen

from scheduler.errors import InvalidJSON, TemplateError
from scheduler.events import Started
from scheduler.history import History
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.reading import Delivered, read
from scheduler.limits import Limits
from scheduler.outcome import read_head, read_reply
from scheduler.plan import Phase, Plan
from scheduler.replies import REPLY, Tokens, is_secret, parse

_log = structlog.get_logger()

_LATE = 10.0
"""Seconds for looking at what was captured since a build was over."""


async def adopt_what_came_late(
    js: JetStream, streams: Mapping[str, str], plan: Plan, history: History, limits: Limits
) -> None:
    """Keep successes beside the errors of a build: what was made need not be made twice.

    Args:
        js: has the captured replies.
        streams: what they are in, by provider.
        plan: of the build, as it was when that was over; `plan.adopted` has what was found.
        history: what the log says of it.
        limits: on the JSON of replies.

    Raises:
        BusError: they cannot be read.
    """
    if not plan.phases.within(Phase.ERRORED):
        return
    failures = Failures.of(plan, history)
    with trio.move_on_after(_LATE) as late:
        for provider, stream in streams.items():
            place = history.since_failures.of(provider)
            known = await js.get(stream, place.sequence) if place.sequence else None
            there = known is not None and known.time == place.time
            replies = read(js, stream, start=place.sequence + 1 if there else 1)
            async with aclosing(replies) as batches:
                async for batch in batches:
                    for reply in batch:
                        _adopt(plan, failures, reply, limits)
                    await trio.lowlevel.checkpoint()
    if late.cancelled_caught:
        _log.warning("not all captured replies were looked at for late successes", build=plan.build.id)


@frozen
class Failures:
    """What the replies to the failed attempts of a build come in on."""

    plan: Plan
    tokens: dict[str, int]
    """The vertices that they were of, by their tokens."""
    old_key: str
    """What tokens began with before the build had a secret key."""
    old: frozenset[int]
    """The vertices of those."""

    @staticmethod
    def of(plan: Plan, history: History) -> "Failures":
        """Of the components that have failed, whichever attempt it was."""
        tokens = Tokens(history.key) if is_secret(history.key) else None
        found: dict[str, int] = {}
        old = set()
        for count, step in enumerate(history.steps):
            if (
                not isinstance(step, Started)
                or plan.phase(plan.graph.index[step.component]) is not Phase.ERRORED
            ):
                continue
            vertex = plan.graph.index[step.component]
            if tokens is not None:
                found[tokens.of(step.attempt)] = vertex
            if tokens is None or count < history.old_steps:
                old.add(vertex)
        key = "" if history.accepted is None else history.accepted.key
        return Failures(plan, found, key, frozenset(old))

    def vertex_of(self, subject: str) -> int | None:
        """Which component a reply subject is of."""
        address = parse(subject)
        if address is None:
            return None
        if address.owner:
            vertex = self.tokens.get(address.token)
            if vertex is not None and self.plan.request(vertex).provider != address.provider:
                return None
            return vertex
        key, _, rest = address.token.partition("-")
        try:
            vertex = int(rest.partition("-")[0], 16)
        except ValueError:
            return None
        return vertex if key and key == self.old_key and vertex in self.old else None


def _adopt(plan: Plan, failures: Failures, reply: Delivered, limits: Limits) -> None:
    suffix: str | None = None
    try:
        if reply.subject.startswith(REPLY):
            vertex = failures.vertex_of(reply.subject)
        else:
            head = read_head(reply.data)
            ours = head is not None and head[0] == plan.build.id
            vertex = plan.graph.index.get(head[1]) if ours and head is not None else None
            suffix = reply.subject.rpartition(".")[2]
        if vertex is None or vertex >= len(plan.phases) or plan.phase(vertex) is not Phase.ERRORED:
            return
        outcome = read_reply(reply.data, suffix, limits)
        request = plan.request(vertex)
    except (InvalidJSON, TemplateError):
        return
    if outcome is not None and (suffix is None or reply.subject.startswith(f"{request.subject}.")):
        plan.adopt(request, outcome)
