"""The requests of a build: rendered from what its components returned, and searched for secrets.

Rendering may take long. A long one is refused on the spot (`Laborious`): the caller has it rendered beside
the loop (`Requests.rendering`), gives the result to `take_in`, and asks again. None of this changes the state
of the build.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, TypeAlias

import msgspec
from msgspec.structs import replace

from scheduler.definition.graph import Vertex
from scheduler.definition.model import Action, State
from scheduler.definition.rules import Retries
from scheduler.definition.secrets.names import has_secret_names
from scheduler.definition.strictjson import packed
from scheduler.definition.subjects import request_subject
from scheduler.definition.template import Laborious, Rendered, Work
from scheduler.definition.validation import Prepared
from scheduler.errors import IllegalTransition, TemplateError
from scheduler.journal.events import Started
from scheduler.plan.attempts import RetryRules
from scheduler.plan.outcome import Outcome
from scheduler.plan.request import Request
from scheduler.plan.state import PlanState
from scheduler.tracing.build import BuildTrace

Rendering: TypeAlias = Rendered | str
"""A rendered component; or the reason why it cannot be rendered."""
_LEARNT_HERE: Final = 16 * 1024
"""Bytes of a request that is searched for secrets on the spot: that takes a millisecond."""


class Requests:
    """Makes the requests of one build.

    Args:
        prepared: the build.
        state: its state.
        retries: the operator's rules, used where neither the component nor the build has one.
        mark: mark of the build's acceptance; empty where there is none.
    """

    __slots__ = (
        "_build",
        "_mark",
        "_put_back",
        "_renderings",
        "_rules",
        "_secrets",
        "_state",
        "_templates",
        "_work",
        "has_open_subjects",
        "laborious",
        "trace",
        "unlearned",
    )

    def __init__(self, prepared: Prepared, state: PlanState, retries: Retries, mark: str) -> None:
        self.trace: BuildTrace | None = None
        """Trace of the build; None where it has none."""
        self.laborious: Vertex | None = None
        """Change that took too long to be rendered on the spot, most recently."""
        self.unlearned: list[Vertex] = []
        """Changes whose requests may hold secrets, and take long to render: to be rendered elsewhere
        (`rendering`), and given to `learn_request`."""
        changes = prepared.build.changes
        words = {change.type for change in changes} | {change.provider for change in changes}
        self.has_open_subjects = any(map(_is_open, words))
        """Whether any request goes out on a subject with references in it."""
        self._build = prepared.build
        self._secrets = prepared.secrets
        self._templates = prepared.templates
        self._state = state
        self._rules = RetryRules(prepared.policy.retry, retries)
        self._mark = f"/{mark}" if mark else ""
        self._work = Work.of_build(len(changes))
        self._renderings: dict[Vertex, Rendering] = {}
        """Results of renderings elsewhere, to be used next."""
        self._put_back: dict[Vertex, None] = {}
        """Changes whose start was undone: their work was charged, and is not charged again."""

    @property
    def work_left(self) -> int:
        """Units of work that rendering the build may still take (`template.work`)."""
        return self._work.left

    # Subjects.

    def subject(self, vertex: Vertex) -> str:
        """Return the subject of a change's request, as far as it is known before rendering."""
        change = self._build.changes[vertex]
        return f"{change.type}.{change.action._value_}.{change.provider}"

    def has_open_subject(self, vertex: Vertex) -> bool:
        """Whether references supply parts of the subject of a change's request."""
        change = self._build.changes[vertex]
        return _is_open(change.type) or _is_open(change.provider)

    def due_subject(self, vertex: Vertex) -> str:
        """Return the subject of a change that is due, rendered if necessary; a guess where that fails.

        Raises:
            Laborious: rendering it takes long (see `rendering`).
        """
        if not self.has_open_subject(vertex):
            return self.subject(vertex)
        change = self._build.changes[vertex]
        try:
            # Not charged to the build: asking what a component waits for must not use up its work.
            rendered = self.rendered(vertex, Work())
            return request_subject(rendered.type, change.action.value, rendered.provider)
        except Laborious:
            raise
        except TemplateError:
            return self.subject(vertex)

    # Contents.

    def make(self, vertex: Vertex) -> Request:
        """Return the request of a change as it would be now.

        Raises:
            Laborious: rendering it takes long (`rendering`).
            TemplateError: a reference in it cannot be resolved.
            IllegalTransition: it is a gate.
        """
        change = self._build.changes[vertex]
        if change.action is Action.APPROVE:
            raise IllegalTransition(f"{change.id} waits for a person, and is never sent")
        rendered = self.rendered(vertex)
        if change.sensitive and vertex not in self._renderings and not self._is_learnt(vertex, rendered):
            if len(rendered.body) > _LEARNT_HERE:
                self.laborious = vertex
                raise Laborious("has more to be searched for secrets than others should wait for")
            self._secrets.add_json(rendered.body)
        subject = request_subject(rendered.type, change.action._value_, rendered.provider)
        failed = self._state.attempts.failed(vertex)
        build, component, mark = self._build.id, change.id, self._mark
        attempt = f"{build}/{component}/{failed + 1}{mark}"
        return Request(
            vertex,
            build,
            component,
            attempt,
            subject,
            rendered.type,
            rendered.provider,
            change.timeout,
            change.retry or self._rules[subject],
            rendered.body,
            Started(component, attempt, change.raw, failed),
            mark,
            change.heartbeat if change.settings else None,
            None if self.trace is None else self.trace.context_of(component, failed + 1),
        )

    def rendered(self, vertex: Vertex, work: Work | None = None) -> Rendered:
        """Render a change as it is to be sent; the work is charged to ``work``, or else to the build.

        Raises:
            Laborious: rendering it on the spot would take long (`rendering`); nothing was changed.
            TemplateError: a reference cannot be resolved.
        """
        if self._renderings and (known := self._renderings.get(vertex)) is not None:
            if isinstance(known, str):
                raise TemplateError(known)
            return known
        try:
            scope = self._state.ledger.scope(vertex)
            most = _LEARNT_HERE if self._build.changes[vertex].sensitive else None
            if work is None:
                work = self._meter(vertex) if self._put_back else self._work
            return self._templates[vertex].render(scope, work=work, inline=True, most=most)
        except Laborious:
            self.laborious = vertex
            raise

    def content(self, vertex: Vertex) -> tuple[Mapping[str, Any], str, str]:
        """Return fields, type and provider of a change; rendered, unless a reference cannot be resolved.

        Raises:
            Laborious: rendering it takes long (`rendering`).
        """
        change = self._build.changes[vertex]
        try:
            rendered = self.rendered(vertex)
        except Laborious:
            raise
        except TemplateError:
            return change.fields, change.type, change.provider
        return msgspec.json.decode(rendered.body), rendered.type, rendered.provider

    def render_first(self, vertex: Vertex) -> None:
        """Render a change, or keep why it cannot be rendered, before anything else is changed.

        Raises:
            Laborious: rendering it takes long (`rendering`).
        """
        try:
            self.take_in(vertex, self.rendered(vertex))
        except Laborious:
            raise
        except TemplateError as error:
            self.take_in(vertex, str(error))

    # Rendering beside the loop.

    def rendering(self, vertex: Vertex) -> Callable[[Callable[[], bool]], Rendering]:
        """Return a function that renders a laborious change in a thread, while others continue.

        The function takes another one, which says whether its time has expired. Its result goes to `take_in`.
        The dependencies of the change must be completed.
        """
        template, work = self._templates[vertex], self._meter(vertex)
        scope = self._state.ledger.scope(vertex)

        def render(expired: Callable[[], bool]) -> Rendering:
            try:
                return template.render(scope, work=work, expired=expired)
            except TemplateError as error:
                return str(error)

        return render

    def learning(self, vertex: Vertex, rendering: Rendering) -> Callable[[], None] | None:
        """Return a function that learns the secrets of a rendered change in a thread; None if it has none.

        The function is to be called before `take_in`.
        """
        if isinstance(rendering, str) or not self._build.changes[vertex].sensitive:
            return None
        if self._is_learnt(vertex, rendering):
            return None
        return partial(self._secrets.add_json, rendering.body, at_once=None)

    def take_in(self, vertex: Vertex, rendering: Rendering) -> None:
        """Keep the rendering of a change, already searched for secrets, until it is next asked for."""
        self._renderings[vertex] = rendering

    def is_rendered(self, vertex: Vertex) -> bool:
        """Whether a rendering of the change is kept for use."""
        return vertex in self._renderings

    def let_go(self, vertex: Vertex) -> None:
        """Discard the kept rendering of a change."""
        if self._renderings:
            self._renderings.pop(vertex, None)

    def put_back(self, vertex: Vertex) -> None:
        """Note that the next rendering of a change is not charged again."""
        self._put_back[vertex] = None

    def take(self, vertex: Vertex) -> None:
        """Use up what is kept for a change: it begins with its request."""
        self.let_go(vertex)
        self._put_back.pop(vertex, None)

    # Secrets.

    def learn_request(self, vertex: Vertex) -> None:
        """Learn the secrets of a request that was sent: an error may quote them, and no reply has them.

        A change that takes long to render is added to `unlearned`; call this again once it was taken in.
        """
        if not self._build.changes[vertex].sensitive:
            return
        try:
            # Called for what it learns; the request itself is not used here.
            self.make(vertex)
        except Laborious:
            self.unlearned.append(vertex)
        except TemplateError:
            # The request cannot be told: only the secrets that were submitted are known.
            pass
        self.let_go(vertex)

    def look_through(self, request: Request, outcome: Outcome) -> Outcome:
        """Learn the secrets of a large reply, and pack large parts of it, in a thread."""
        if outcome.body is None:
            return outcome
        self._secrets.add(self.identified(request, outcome.body, State.COMPLETED), at_once=None)
        if self._build.changes[request.vertex].action is Action.FIND:
            # The found elements become components.
            return replace(outcome, searched=True)
        return replace(outcome, body=packed(outcome.body), searched=True)

    def look_at(self, request: Request, outcome: Outcome) -> tuple[Outcome, dict[str, Any] | None]:
        """Learn the secrets of a reply.

        Returns:
            The outcome, and the body as it is kept; the body is None where the reply has none. A reply that
            does not fit the request is a failure.

        """
        if outcome.body is None:
            return outcome, None
        # Searched as it is kept: settings that a connector omits (`_secret`, the type) say what is secret,
        # too.
        vertex, ledger = request.vertex, self._state.ledger
        kept = ledger.identified(
            vertex, outcome.body, State.COMPLETED, type_=request.type, provider=request.provider
        )
        if outcome.searched:
            ledger.note_packed(vertex)
        elif has_secret_names(kept, texts=outcome.has_at):
            self._secrets.add(kept)
        if outcome.completed and self._build.changes[vertex].action is Action.FIND:
            return ledger.checked_find(outcome.body), kept
        return outcome, kept

    def learn_output(self, vertex: Vertex, output: Mapping[str, Any]) -> None:
        """Learn the secrets of an output that an operator supplies for a change."""
        change = self._build.changes[vertex]
        of, type_, provider = self._state.ledger.identified, change.type, change.provider
        # Searched as it is kept: the type and `_secret` say what is secret, too.
        self._secrets.add(of(vertex, output, State.COMPLETED, type_=type_, provider=provider))

    def identified(self, request: Request, body: Mapping[str, Any], state: State) -> dict[str, Any]:
        """Return a reply with our own keys, as it is kept (`Ledger.identified`)."""
        of = self._state.ledger.identified
        return of(request.vertex, body, state, type_=request.type, provider=request.provider)

    def _is_learnt(self, vertex: Vertex, rendered: Rendered) -> bool:
        """Whether all secrets in the request of a sensitive change were known when the build was read."""
        # Text that looks like a reference, and is none, was skipped then.
        body = rendered.body
        return self._templates[vertex].constant and b"{{" not in body and b'"$(' not in body

    def _meter(self, vertex: Vertex) -> Work:
        """Return the budget that rendering a change is charged to."""
        return Work() if vertex in self._put_back else self._work


def _is_open(word: str) -> bool:
    return "{" in word or "$" in word
