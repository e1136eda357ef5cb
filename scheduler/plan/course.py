"""The run of a build by itself: what may start, what a reply changes, how it ends."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

import msgspec
from attrs import evolve, field

from scheduler.definition.graph import Vertex
from scheduler.definition.limits import DEFAULT_LIMITS, Limits
from scheduler.definition.model import Action, Change, State
from scheduler.definition.rules import LimitRule, Retries, Retry, retry_for
from scheduler.definition.strictjson import Raw, packed
from scheduler.definition.subjects import request_subject
from scheduler.definition.template import Laborious, Rendered, Work
from scheduler.definition.validation import Prepared
from scheduler.errors import IllegalTransition, Stuck, TemplateError
from scheduler.journal.events import Accepted, Finished, Retrying, Settled, Started, Withdrawn
from scheduler.plan.attempts import AttemptCounts
from scheduler.plan.ledger import Ledger
from scheduler.plan.outcome import Outcome, cut, error_text
from scheduler.plan.phases import IN_FLIGHT, Phase, Phases
from scheduler.plan.report import Report
from scheduler.runtime.breath import breathe
from scheduler.runtime.values import value

Rendering: TypeAlias = Rendered | str
"""A component that was rendered; or why it cannot be."""
_MOST_SHOWN = 4_000
"""Characters of a build's error that people see; the report has all of it."""
_LEARNT_HERE: Final = 16 * 1024
"""Bytes of a request that is searched for secrets on the spot: a millisecond."""


@value
class Request:
    """What is to be sent for one component."""

    vertex: Vertex
    build: str
    component: str
    attempt: str
    """``<build>/<component>/<n>``, and the mark of the build's acceptance where it has one: a key by which a
    connector can know a request it had before."""
    subject: str
    type: str
    provider: str
    timeout: float | None
    """Seconds, where the component names them."""
    retry: Retry
    """What follows when it fails."""
    body: bytes = field(repr=False)
    started: Started = field(repr=False)
    """To be persisted before the request leaves."""
    mark: str = ""
    """What the ids of all attempts of the build end with; empty, or ``/`` and the mark of its acceptance."""

    @property
    def key(self) -> str:
        """``<build>/<component>`` and the mark: the same over all attempts, and over all runs of a build."""
        return f"{self.build}/{self.component}{self.mark}"


class Course:
    """The course of one build, from its acceptance to its report, if nobody interferes.

    Args:
        prepared: the build.
        resumed: it was begun by an earlier process: what it says is `running` is in flight and is
            awaited, and what it says is `errored` has failed. Otherwise both are to be done.
        limits: for texts that come in on the way.
        retries: the operator's rules, for what neither the component nor the build has a rule.
        mark: of the build's acceptance, drawn once; empty where the store keeps none.
    """

    __slots__ = (
        "__weakref__",
        "_adoptable",
        "_attempts",
        "_forgiven",
        "_halted",
        "_last_errors",
        "_ledger",
        "_limits",
        "_mark",
        "_outputs",
        "_policy",
        "_put_back",
        "_renderings",
        "_retries",
        "_secrets",
        "_shown_cause",
        "_skips",
        "_templates",
        "_unpersisted",
        "_work",
        "build",
        "cancelled",
        "cause",
        "digest",
        "finished",
        "graph",
        "has_open_subjects",
        "laborious",
        "mark",
        "paused",
        "phases",
        "prepared",
        "priorities",
        "rules",
        "run",
        "stopped",
    )

    def __init__(
        self,
        prepared: Prepared,
        *,
        resumed: bool = False,
        limits: Limits = DEFAULT_LIMITS,
        retries: Retries = (),
        mark: str = "",
    ) -> None:
        self.prepared = prepared
        """The build as it was found valid."""
        self.build = prepared.build
        self.digest = prepared.digest.hex()
        """Equal for equal content."""
        self.graph = prepared.graph
        self.phases = Phases(prepared.graph.ids)
        """Where each change stands."""
        self.cause: str | None = None
        """What is to be reported as the build's error; None while there is none. See `shown_cause`."""
        self.stopped = False
        """Whether this process is to end; that halts the build, and is no failure of it."""
        self.paused = False
        """Whether an operator wants nothing new to be sent, for now."""
        self.cancelled = False
        """Whether an operator has ended it."""
        self.finished = False
        """Whether the end of the run was persisted by an earlier process."""
        self.run = 1
        """Counts the runs of the build: one, and one more each time that it is gone on with after its end."""
        self.rules: tuple[LimitRule, ...] = prepared.policy.limits
        """The build's own limits."""
        self.priorities: Sequence[float] = ()
        """By vertex: what the rest of the build waits for most is the highest."""
        self.mark = mark
        """Of the build's acceptance; empty where there is none."""
        self._mark = f"/{mark}" if mark else ""
        self._policy = prepared.policy
        self._retries = retries
        self._halted = False
        self._forgiven = 0
        """Failures that an operator knew of and went on with."""
        self.laborious: Vertex | None = None
        """The change that took too long to be rendered on the spot, the last time that any did."""
        changes = prepared.build.changes
        words = {change.type for change in changes} | {change.provider for change in changes}
        self.has_open_subjects = any(map(_is_open, words))
        """Whether references supply what any request goes out on."""
        self._templates = prepared.templates
        self._work = Work.of_build(len(prepared.build.changes))
        self._renderings: dict[Vertex, Rendering] = {}
        """What was rendered elsewhere, and is to be used now."""
        self._put_back: dict[Vertex, None] = {}
        """What has begun, and was taken back by `unbegin`: its work was charged, and is not charged again."""
        self._limits = limits
        self._secrets = prepared.secrets
        self._shown_cause: tuple[str, object, str] | None = None
        """The cause, the secrets that were known, and the cause without them."""
        self._ledger = Ledger(prepared.build, prepared.graph, limits)
        self._attempts = AttemptCounts()
        self._last_errors: dict[Vertex, str] = {}
        """Of those whose last attempt failed, and that are tried again."""
        self._outputs: dict[Vertex, Mapping[str, Any]] = {}
        """What an operator supplied for changes that are not due yet."""
        self._adoptable: dict[Vertex, Mapping[str, Any]] = {}
        self._unpersisted: list[Settled] = []
        self._skips: list[Vertex] = []
        for vertex, change in enumerate(self.build.changes):
            if change.state is State.COMPLETED:
                self._move(vertex, Phase.COMPLETED)
            elif resumed and change.state is State.ERRORED:
                self._move(vertex, Phase.ERRORED)
            elif resumed and change.state is State.RUNNING and change.action is not Action.NONE:
                self._move(vertex, Phase.STARTING)
                self._move(vertex, Phase.RUNNING)
        if resumed:
            self._take_over()

    def _take_over(self) -> None:
        """What a store that has no log says of an earlier process."""
        for vertex, change in enumerate(self.build.changes):
            self._attempts.start_at(vertex, change.attempts)
            if self.phases[vertex] is Phase.ERRORED:
                why = error_text(change.fields.get("error"), self._limits) or "failed before a restart"
                self._reckon(vertex, why)
        for layer in self.graph.layers():
            for vertex in layer:
                if self.phases[vertex] is Phase.COMPLETED and (missing := self._ledger.catch_up(vertex)):
                    self._unpersisted.append(missing)

    @property
    def halted(self) -> bool:
        """Whether nothing new may be sent any more."""
        return self.stopped or self._halted

    @property
    def held(self) -> bool:
        """Whether nothing new may be sent now."""
        return self.halted or self.paused

    @property
    def in_flight(self) -> int:
        """How many changes are in flight."""
        return self.phases.in_flight

    @property
    def settled(self) -> int:
        """How many changes are settled."""
        return self.phases.settled

    @property
    def over(self) -> bool:
        """Whether the build has come to its end: nothing is in flight, and nothing is left to be done."""
        counts = self.phases.counts
        if self.phases.in_flight or counts[Phase.RETRYING]:
            return False
        return self._halted or not counts[Phase.WAITING]

    @property
    def accepted(self) -> Accepted:
        """The first event of the build."""
        return Accepted({**self.build.fields, **self.report().lists()}, self.digest, mark=self.mark)

    @property
    def completed(self) -> int:
        """How many changes are completed."""
        return self.phases.counts[Phase.COMPLETED]

    def counts(self) -> dict[str, int]:
        """How many changes are in each state, as people are told: what is about to be sent is running."""
        counts = self.phases.counts
        return {
            "waiting": counts[Phase.WAITING],
            "running": self.phases.in_flight,
            "retrying": counts[Phase.RETRYING],
            "completed": counts[Phase.COMPLETED],
            "errored": counts[Phase.ERRORED],
            "skipped": counts[Phase.SKIPPED],
        }

    def phase(self, vertex: Vertex) -> Phase:
        """Where a change stands."""
        return self.phases[vertex]

    def unsettled(self) -> list[Vertex]:
        """The changes that have no outcome yet, and may get one."""
        return self.phases.within(Phase.WAITING, Phase.STARTING, Phase.RUNNING, Phase.RETRYING)

    def halt(self, cause: str) -> None:
        """From now on nothing new is sent. The first cause is kept: it is the one reported."""
        self._halted = True
        if self.cause is None:
            self.cause = cause

    def stop(self) -> None:
        """From now on nothing new is sent, because this process is to end."""
        self.stopped = True

    def is_in_flight(self, vertex: Vertex) -> bool:
        """Whether a change is in flight; at the beginning only what an earlier process sent is."""
        return self.phases[vertex] in IN_FLIGHT

    def is_starting(self, vertex: Vertex) -> bool:
        """Whether a change is about to be sent, as far as is known."""
        return self.phases[vertex] is Phase.STARTING

    def is_due(self, vertex: Vertex) -> bool:
        """Whether a change whose dependencies are settled is to be tried, as soon as nothing holds it up."""
        return not self.halted and self.phases[vertex] in {Phase.WAITING, Phase.RETRYING}

    def is_to_be_given_up(self, vertex: Vertex) -> bool:
        """Whether a change waits for another attempt that there will not be."""
        return self._halted and self.phases[vertex] is Phase.RETRYING

    def is_instant(self, vertex: Vertex) -> bool:
        """Whether a change completes without being sent."""
        return self.build.changes[vertex].action is Action.NONE or vertex in self._outputs

    def attempt(self, vertex: Vertex) -> int:
        """The number of the attempt that is in flight, or was the last one; 1 before the first."""
        failed = self._attempts.failed(vertex)
        return max(1, failed if self.phases[vertex] in {Phase.RETRYING, Phase.ERRORED} else failed + 1)

    def subject(self, vertex: Vertex) -> str:
        """What the request of a change goes out on, as far as that can be told before it is rendered."""
        change = self.build.changes[vertex]
        return f"{change.type}.{change.action.value}.{change.provider}"

    def has_open_subject(self, vertex: Vertex) -> bool:
        """Whether references supply what the request of a change goes out on."""
        change = self.build.changes[vertex]
        return _is_open(change.type) or _is_open(change.provider)

    def due_subject(self, vertex: Vertex) -> str:
        """The same as `subject` of a change that is due, rendered where it must be; a guess where that fails.

        Raises:
            Laborious: it takes long to render it (see `rendering`).
        """
        if not self.has_open_subject(vertex):
            return self.subject(vertex)
        change = self.build.changes[vertex]
        try:
            # Not charged to the build: whoever asks what a component waits for must not use it up.
            rendered = self._rendered(vertex, Work())
            return request_subject(rendered.type, change.action.value, rendered.provider)
        except Laborious:
            raise
        except TemplateError:
            return self.subject(vertex)

    @property
    def work_left(self) -> int:
        """Units of work that rendering the build may still take (`template.work`)."""
        return self._work.left

    def rendering(self, vertex: Vertex) -> Callable[[Callable[[], bool]], Rendering]:
        """What renders a change that takes long, in a thread: while the plan goes on with others.

        It takes a function that says whether its time is over, and returns what is to be given to `take_in`.
        The dependencies of the change must be completed.
        """
        template, scope, work = self._templates[vertex], self._ledger.scope(vertex), self._meter(vertex)

        def render(expired: Callable[[], bool]) -> Rendering:
            try:
                return template.render(scope, work=work, expired=expired)
            except TemplateError as error:
                return str(error)

        return render

    def learning(self, vertex: Vertex, rendering: Rendering) -> Callable[[], None] | None:
        """What learns the secrets of a change that was rendered elsewhere, in a thread; None: there are none.

        To be done before `take_in`.
        """
        if isinstance(rendering, str) or self._is_learnt(vertex, rendering):
            return None
        return partial(self._secrets.add_json, rendering.body, at_once=None)

    def take_in(self, vertex: Vertex, rendering: Rendering) -> None:
        """A change was rendered elsewhere, and searched for secrets: it is used when it is next asked for."""
        self._renderings[vertex] = rendering

    def is_rendered(self, vertex: Vertex) -> bool:
        """Whether a change was rendered elsewhere, and that is still to be used."""
        return vertex in self._renderings

    def let_go(self, vertex: Vertex) -> None:
        """What was rendered of a change elsewhere is not used now after all."""
        self._renderings.pop(vertex, None)

    def _rendered(self, vertex: Vertex, work: Work | None = None) -> Rendered:
        """A change as it is to be sent; ``work`` is charged for it, the build's if there is none.

        Raises:
            Laborious: not on the spot (`rendering`); nothing was changed.
            TemplateError: a reference cannot be resolved.
        """
        if self._renderings and (known := self._renderings.get(vertex)) is not None:
            if isinstance(known, str):
                raise TemplateError(known)
            return known
        try:
            scope = self._ledger.scope(vertex)
            most = _LEARNT_HERE if self.build.changes[vertex].sensitive else None
            return self._templates[vertex].render(
                scope, work=work or self._meter(vertex), inline=True, most=most
            )
        except Laborious:
            self.laborious = vertex
            raise

    def _meter(self, vertex: Vertex) -> Work:
        """What is charged for rendering a change."""
        return Work() if vertex in self._put_back else self._work

    def begin(self, vertex: Vertex, rendered: Request | None = None) -> Request | Settled | None:
        """Whether a change whose dependencies are settled may start, and with what.

        Args:
            vertex: the change.
            rendered: its request as `begin` returned it before, where that was taken back by `unbegin`.

        Returns:
            None where the plan is held; the outcome where it has one without being sent (action
            ``none``, an operator's word, or a reference that cannot be resolved); otherwise the request:
            persist its ``started``, then call `sent` or `withdraw`.

        Raises:
            IllegalTransition: the change began before, or a dependency is not completed.
            Laborious: it takes long to render it (`rendering`), and nothing was changed.
        """
        if self.held:
            return None
        change = self.build.changes[vertex]
        phases = self.phases
        for dependency in self.graph.dependencies[vertex]:
            if phases[dependency] is not Phase.COMPLETED:
                msg = f"{change.id} cannot begin before {self.graph.ids[dependency]} is completed"
                raise IllegalTransition(msg)
        if vertex in self._outputs:
            settled = self._complete_with(vertex, self._outputs[vertex])
            del self._outputs[vertex]
            return settled
        if change.action is Action.NONE:
            self._move(vertex, Phase.COMPLETED)
            return self._ledger.complete(vertex, {**change.fields, "_state": "completed"})
        if rendered is not None and rendered.started.failed == self._attempts.failed(vertex):
            # What it is rendered from is all completed, and stays as it is.
            self._put_back.pop(vertex, None)
            self._move(vertex, Phase.STARTING)
            return rendered
        try:
            request = self._request(vertex, change)
        except Laborious:
            raise
        except TemplateError as error:
            self.let_go(vertex)
            text = str(error).removeprefix(f"{change.id}.")
            return self._fail(vertex, text)
        if self._renderings:
            self.let_go(vertex)
        if self._put_back:
            self._put_back.pop(vertex, None)
        self._move(vertex, Phase.STARTING)
        return request

    def unbegin(self, vertex: Vertex) -> None:
        """There is no room for the request of a change that has just begun: it waits as it did before.

        Nothing of its beginning may have been persisted. What its rendering has cost is not charged again.

        Raises:
            IllegalTransition: it is not about to be sent.
        """
        again = vertex in self._last_errors and self._attempts.is_between(vertex)
        self._move(vertex, Phase.RETRYING if again else Phase.WAITING)
        self._put_back[vertex] = None

    def _complete_with(self, vertex: Vertex, output: Mapping[str, Any]) -> Settled:
        change = self.build.changes[vertex]
        body, type_, provider = change.fields, change.type, change.provider
        try:
            rendered = self._rendered(vertex)
        except Laborious:
            raise
        except TemplateError:
            # It may be supplied for this very reason.
            pass
        else:
            body = msgspec.json.decode(rendered.body)
            type_, provider = rendered.type, rendered.provider
        self.let_go(vertex)
        if self.phases[vertex] is Phase.SKIPPED:
            self.phases.reopen(vertex)
        self._move(vertex, Phase.COMPLETED)
        self._skip_anew()
        kept = self._ledger.identified(
            vertex, {**body, **output}, State.COMPLETED, type_=type_, provider=provider
        )
        return self._ledger.complete(vertex, kept)

    def request(self, vertex: Vertex) -> Request:
        """The request of a change as it would be now.

        Raises:
            Laborious: it takes long to render it (`rendering`).
            TemplateError: a reference in it cannot be resolved.
        """
        return self._request(vertex, self.build.changes[vertex])

    def _request(self, vertex: Vertex, change: Change) -> Request:
        rendered = self._rendered(vertex)
        if change.sensitive and vertex not in self._renderings and not self._is_learnt(vertex, rendered):
            if len(rendered.body) > _LEARNT_HERE:
                self.laborious = vertex
                raise Laborious("has more to be searched for secrets than others should wait for")
            self._secrets.add_json(rendered.body)
        subject = request_subject(rendered.type, change.action.value, rendered.provider)
        failed = self._attempts.failed(vertex)
        mark = self._mark
        attempt = f"{self.build.id}/{change.id}/{failed + 1}{mark}"
        return Request(
            vertex,
            self.build.id,
            change.id,
            attempt,
            subject,
            rendered.type,
            rendered.provider,
            change.timeout,
            change.retry or self._policy.retry or retry_for(self._retries, subject),
            rendered.body,
            Started(change.id, attempt, change.raw, failed),
            mark,
        )

    def _is_learnt(self, vertex: Vertex, rendered: Rendered) -> bool:
        """Whether what is to be sent has no secrets that were not known when the build was read."""
        if not self.build.changes[vertex].sensitive:
            return True
        # What looks like a reference, and is none, was passed over then.
        body = rendered.body
        return self._templates[vertex].constant and b"{{" not in body and b'"$(' not in body

    def sent(self, vertex: Vertex) -> None:
        """The request goes out now; to be called in the same breath as handing it to the bus.

        Raises:
            IllegalTransition: it did not begin, or the plan is held.
        """
        if self.held:
            why = self.shown_cause or ("the scheduler is to stop" if self.stopped else "it is paused")
            msg = f"{self.graph.ids[vertex]} must not be sent: the build is halted ({why})"
            raise IllegalTransition(msg)
        self._move(vertex, Phase.RUNNING)

    def resume(self, vertex: Vertex) -> Request | Settled:
        """A change that an earlier process began to send.

        Returns:
            The request that it must have been; or the outcome, where that can no longer be told.

        Raises:
            IllegalTransition: it is not in flight.
            Laborious: it takes long to render it (`rendering`), and nothing was changed.
        """
        change = self.build.changes[vertex]
        if self.phases[vertex] not in IN_FLIGHT:
            msg = f"{change.id} is {self.phases[vertex].name}, and was not sent"
            raise IllegalTransition(msg)
        try:
            request = self._request(vertex, change)
        except Laborious:
            raise
        except TemplateError as error:
            self.let_go(vertex)
            self.departed(vertex)
            self._attempts.fail(vertex)
            return self._fail(vertex, f"sent before a restart, and its request cannot be told again: {error}")
        self.let_go(vertex)
        return request

    def departed(self, vertex: Vertex) -> None:
        """The request of a change that began to be sent has left, or may have: it is in flight.

        Raises:
            IllegalTransition: it is neither about to be sent nor sent.
        """
        if self.phases[vertex] is not Phase.RUNNING:
            self._move(vertex, Phase.RUNNING)

    def withdraw(self, vertex: Vertex) -> Withdrawn:
        """The request did not leave, and never will: the change is waiting again.

        Raises:
            IllegalTransition: it is not in flight.
        """
        self._move(vertex, Phase.WAITING)
        change = self.build.changes[vertex]
        return Withdrawn(change.id, change.raw, self._attempts.failed(vertex))

    def settle(
        self, request: Request, outcome: Outcome, *, luck: float = 1.0, elapsed: float = 0.0
    ) -> Settled | Retrying:
        """The attempt ended (WIRE: "What a completion changes"). An error may halt the build.

        Args:
            request: of the attempt.
            outcome: how it ended.
            luck: from 0 to 1, random: how much of the longest pause passes before another attempt.
            elapsed: seconds since the first attempt.

        Returns:
            What became of the change; or that there will be another attempt.

        Raises:
            IllegalTransition: the change is not in flight.
        """
        vertex = request.vertex
        self._must_be_running(vertex)
        change = self.build.changes[vertex]
        outcome, kept = self._looked_at(request, outcome)
        if outcome.completed:
            self._move(vertex, Phase.COMPLETED)
            kept = kept or self._identified(request, change.fields, State.COMPLETED)
            return self._ledger.complete(vertex, kept)
        failed = self._attempts.fail(vertex)
        again = self._attempts.again(vertex, request.retry, outcome, luck, elapsed)
        error = self._text(outcome.error or "failed")
        if isinstance(again, str):
            return self._fail(vertex, error + again, request, outcome.body)
        if self._halted:
            return self._fail(
                vertex, f"{error} (not tried again: the build was halted)", request, outcome.body
            )
        self._move(vertex, Phase.RETRYING)
        self._last_errors[vertex] = error
        return Retrying(change.id, request.attempt, error, again.pause, change.raw, failed)

    def give_up_retrying(self, vertex: Vertex) -> Settled:
        """There will be no other attempt of a change whose last one has failed: the build was halted.

        Raises:
            IllegalTransition: it does not wait for another attempt.
        """
        if self.phases[vertex] is not Phase.RETRYING:
            msg = f"{self.graph.ids[vertex]} is {self.phases[vertex].name}, and not to be tried again"
            raise IllegalTransition(msg)
        return self._fail(vertex, f"{self._last_errors[vertex]} (not tried again: the build was halted)")

    def rescue(self, request: Request, outcome: Outcome) -> Settled | None:
        """A reply came to an attempt that had been given up, and the change waits for another one.

        Returns:
            The outcome, where it is a success: no other attempt is needed. Otherwise None.
        """
        vertex = request.vertex
        if self.phases[vertex] not in {Phase.RETRYING, Phase.WAITING} or not self._attempts.failed(vertex):
            return None
        outcome, kept = self._looked_at(request, outcome)
        if not outcome.completed or kept is None:
            return None
        self._move(vertex, Phase.COMPLETED)
        return self._ledger.complete(vertex, kept)

    def adopt(self, request: Request, outcome: Outcome) -> bool:
        """A success that came after the change had failed: kept beside the error as ``adoptable``.

        Returns:
            Whether it was kept: only a success is, and only the first.
        """
        vertex = request.vertex
        if self.phases[vertex] is not Phase.ERRORED or vertex not in self._ledger.final:
            return False
        outcome, kept = self._looked_at(request, outcome)
        if not outcome.completed or kept is None or vertex in self._adoptable:
            return False
        self._adoptable[vertex] = kept
        self._unpersisted.append(self._ledger.adopt(vertex, kept))
        return True

    def adopted(self) -> list[Settled]:
        """What is to be persisted beside the outcomes themselves, since the last time this was asked.

        That is what `adopt` kept, and what an earlier process did not get round to.
        """
        kept, self._unpersisted = self._unpersisted, []
        return kept

    def skips(self) -> list[Vertex]:
        """What will not be sent because something before it has failed, since this was last asked."""
        skips, self._skips = self._skips, []
        return skips

    def abandon(self, why: str) -> list[Settled | Withdrawn]:
        """Give up on whatever is in flight: it fails, its outcome unknown. The build is halted."""
        ended: list[Settled | Withdrawn] = []
        for vertex in range(len(self.phases)):
            phase = self.phases[vertex]
            if phase is Phase.STARTING:
                ended.append(self.withdraw(vertex))
            elif phase is Phase.RUNNING:
                self._attempts.fail(vertex)
                ended.append(self._fail(vertex, why))
            elif phase is Phase.RETRYING:
                ended.append(self._fail(vertex, f"{self._last_errors[vertex]} (not tried again: {why})"))
        self.halt(why)
        return ended

    def finish(self) -> Finished:
        """The end of the build.

        Raises:
            Stuck: something is in flight, or nothing is, and nothing explains why not all is completed.
        """
        if self.in_flight:
            msg = f"{self.in_flight} changes are in flight at the end of build {self.build.id}"
            raise Stuck(msg)
        if not self._halted and (left := self.phases.within(Phase.WAITING, Phase.RETRYING)):
            waiting = [self.graph.ids[vertex] for vertex in left[:5]]
            msg = f"build {self.build.id} is not halted, has nothing in flight, and {waiting} never began"
            raise Stuck(msg)
        return Finished(self.cause)

    def report(self) -> Report:
        """The report as things stand: complete once `finish` has returned."""
        return Report(
            self.build.action,
            self.cause,
            self.build.fields,
            list(self._ledger.existing.values()),
            [self._shown(vertex) for vertex in range(len(self.phases))],
            self.build.edges,
            {state: count for state, count in self.counts().items() if count},
            self.run,
            self.mark,
            self.build.absent,
            cancelled=self.cancelled,
        )

    def error(self, vertex: Vertex) -> str | None:
        """Why a change has failed, or its last attempt has; None where nothing did. For people: `masked`."""
        if self.phases[vertex] is Phase.RETRYING:
            return self._last_errors[vertex]
        return self._ledger.error(vertex) if self.phases[vertex] is Phase.ERRORED else None

    def parts(self) -> list[object]:
        """Everything large in it, for whoever lets go of it piece by piece."""
        ledger = self._ledger
        return [
            *self.build.components,
            *self.build.edges,
            *self.build.changes,
            *self._templates,
            *ledger.existing.values(),
            *ledger.final.values(),
        ]

    def in_flight_ids(self) -> Iterator[str]:
        """The ids of the changes that are in flight."""
        return (self.graph.ids[vertex] for vertex in self.phases.within(*IN_FLIGHT))

    def _shown(self, vertex: Vertex) -> Mapping[str, Any] | Raw:
        breathe()
        return self._ledger.shown(vertex, self.phases[vertex].state)

    def masked(self, text: str, most: int = 0) -> str:
        """A text without the secrets of the build, for people to see; cut to ``most`` characters, if any.

        Of a long text a few thousand characters take some milliseconds; all of it takes 25.
        """
        return self._secrets.mask(text, most)

    @property
    def secrets_known(self) -> Hashable:
        """What `masked` knows: where that has changed, what it has masked before may look otherwise."""
        return self._secrets.known

    @property
    def shown_cause(self) -> str | None:
        """The `cause` without the secrets of the build, for people to see; the beginning of a long one."""
        if self.cause is None:
            return None
        known = self.secrets_known
        if self._shown_cause is None or self._shown_cause[:2] != (self.cause, known):
            # It may be long, and is asked for every two seconds by everybody who watches.
            self._shown_cause = self.cause, known, self.masked(self.cause, _MOST_SHOWN)
        return self._shown_cause[2]

    def _text(self, error: str) -> str:
        """An error as it is kept and reported: what was said, byte for byte, up to the bound."""
        return cut(error, self._limits.max_error_bytes)

    def _fail(
        self,
        vertex: Vertex,
        error: str,
        request: Request | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Settled:
        self._move(vertex, Phase.ERRORED)
        error = self._text(error)
        self._reckon(vertex, error)
        kept = self._identified(request, body, State.ERRORED) if request and body else None
        return self._ledger.fail(vertex, error, kept)

    def _reckon(self, vertex: Vertex, error: str) -> None:
        """A change has failed: the build is halted by that, or goes on without what depends on it."""
        if self.cause is None:
            self.cause = f"{self.graph.ids[vertex]}: {error}"
        if self.phases.counts[Phase.ERRORED] > self._forgiven + self._policy.most_failures:
            self._halted = True
        else:
            self._skip_behind(vertex)

    def _skip_anew(self) -> None:
        """Something is completed after all: what was skipped behind it may be due."""
        for dependent in self.phases.within(Phase.SKIPPED):
            self.phases.reopen(dependent)
        for errored in self.phases.within(Phase.ERRORED):
            self._skip_behind(errored)

    def _skip_behind(self, vertex: Vertex) -> None:
        todo = [vertex]
        while todo:
            for dependent in self.graph.dependents[todo.pop()]:
                if self.phases[dependent] is Phase.WAITING:
                    self._move(dependent, Phase.SKIPPED)
                    self._skips.append(dependent)
                    todo.append(dependent)

    def look_through(self, request: Request, outcome: Outcome) -> Outcome:
        """A large reply, for a thread: its secrets are known from now on, what is large in it is packed."""
        if outcome.body is None:
            return outcome
        kept = self._identified(request, outcome.body, State.COMPLETED)
        self._secrets.add(kept, at_once=None)
        if self.build.changes[request.vertex].action is Action.FIND:
            # What it returned becomes components.
            return evolve(outcome, searched=True)
        return evolve(outcome, body=packed(outcome.body), searched=True)

    def _looked_at(self, request: Request, outcome: Outcome) -> tuple[Outcome, dict[str, Any] | None]:
        """A reply whose secrets are known from now on, and what is kept of it where it is a success.

        It is a failure where it is no reply to such a request.
        """
        if outcome.body is None:
            return outcome, None
        # As it is kept: what a connector leaves out says what is secret (`_secret`, the type), too.
        kept = self._identified(request, outcome.body, State.COMPLETED)
        if outcome.searched:
            self._ledger.note_packed(request.vertex)
        else:
            self._secrets.add(kept)
        if outcome.completed and self.build.changes[request.vertex].action is Action.FIND:
            return self._ledger.checked_find(outcome.body), kept
        return outcome, kept

    def _identified(self, request: Request, body: Mapping[str, Any], state: State) -> dict[str, Any]:
        return self._ledger.identified(
            request.vertex, body, state, type_=request.type, provider=request.provider
        )

    def _must_be_running(self, vertex: Vertex) -> None:
        phase = self.phases[vertex]
        if phase is not Phase.RUNNING:
            msg = f"{self.graph.ids[vertex]} is {phase.name}, and was not sent"
            raise IllegalTransition(msg)

    def _move(self, vertex: Vertex, phase: Phase) -> None:
        self.phases.move(vertex, phase)


def _is_open(word: str) -> bool:
    return "{" in word or "$" in word
