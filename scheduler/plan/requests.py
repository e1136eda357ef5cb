"""The requests of a build: rendered from what its components returned, and searched for secrets.

Rendering may take long. What does is refused on the spot (`Laborious`): whoever asks has it rendered beside
the loop (`Requests.rendering`), takes it in, and asks again. None of this changes how the build stands.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, TypeAlias

import msgspec
from attrs import evolve, field

from scheduler.definition.graph import Vertex
from scheduler.definition.model import Action, Change, State
from scheduler.definition.rules import Retries, Retry, retry_for
from scheduler.definition.strictjson import packed
from scheduler.definition.subjects import request_subject
from scheduler.definition.template import Laborious, Rendered, Work
from scheduler.definition.validation import Prepared
from scheduler.errors import TemplateError
from scheduler.journal.events import Started
from scheduler.plan.outcome import Outcome
from scheduler.plan.state import PlanState
from scheduler.runtime.values import value

Rendering: TypeAlias = Rendered | str
"""A component that was rendered; or why it cannot be."""
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


class Requests:
    """Makes the requests of one build.

    Args:
        prepared: the build.
        state: how it stands.
        retries: the operator's rules, for what neither the component nor the build has a rule.
        mark: of the build's acceptance; empty where there is none.
    """

    __slots__ = (
        "_build",
        "_mark",
        "_policy",
        "_put_back",
        "_renderings",
        "_retries",
        "_secrets",
        "_state",
        "_templates",
        "_work",
        "has_open_subjects",
        "laborious",
        "unlearned",
    )

    def __init__(self, prepared: Prepared, state: PlanState, retries: Retries, mark: str) -> None:
        self.laborious: Vertex | None = None
        """The change that took too long to be rendered on the spot, the last time that any did."""
        self.unlearned: list[Vertex] = []
        """Changes whose requests may hold secrets, and take long to be rendered: to be rendered elsewhere
        (`rendering`), and told to `learn_request`."""
        changes = prepared.build.changes
        words = {change.type for change in changes} | {change.provider for change in changes}
        self.has_open_subjects = any(map(_is_open, words))
        """Whether references supply what any request goes out on."""
        self._build = prepared.build
        self._policy = prepared.policy
        self._secrets = prepared.secrets
        self._templates = prepared.templates
        self._state = state
        self._retries = retries
        self._mark = f"/{mark}" if mark else ""
        self._work = Work.of_build(len(changes))
        self._renderings: dict[Vertex, Rendering] = {}
        """What was rendered elsewhere, and is to be used now."""
        self._put_back: dict[Vertex, None] = {}
        """What has begun, and was taken back: its work was charged, and is not charged again."""

    @property
    def work_left(self) -> int:
        """Units of work that rendering the build may still take (`template.work`)."""
        return self._work.left

    @property
    def large(self) -> list[object]:
        """What is large in it, for whoever lets go of it piece by piece."""
        return list(self._templates)

    # Where they go.

    def subject(self, vertex: Vertex) -> str:
        """What the request of a change goes out on, as far as that can be told before it is rendered."""
        change = self._build.changes[vertex]
        return f"{change.type}.{change.action.value}.{change.provider}"

    def has_open_subject(self, vertex: Vertex) -> bool:
        """Whether references supply what the request of a change goes out on."""
        change = self._build.changes[vertex]
        return _is_open(change.type) or _is_open(change.provider)

    def due_subject(self, vertex: Vertex) -> str:
        """The same as `subject` of a change that is due, rendered where it must be; a guess where that fails.

        Raises:
            Laborious: it takes long to render it (see `rendering`).
        """
        if not self.has_open_subject(vertex):
            return self.subject(vertex)
        change = self._build.changes[vertex]
        try:
            # Not charged to the build: whoever asks what a component waits for must not use it up.
            rendered = self.rendered(vertex, Work())
            return request_subject(rendered.type, change.action.value, rendered.provider)
        except Laborious:
            raise
        except TemplateError:
            return self.subject(vertex)

    # What they say.

    def make(self, vertex: Vertex) -> Request:
        """The request of a change as it would be now.

        Raises:
            Laborious: it takes long to render it (`rendering`).
            TemplateError: a reference in it cannot be resolved.
        """
        change = self._build.changes[vertex]
        rendered = self.rendered(vertex)
        if (
            change.sensitive
            and vertex not in self._renderings
            and not self._is_learnt(change, vertex, rendered)
        ):
            if len(rendered.body) > _LEARNT_HERE:
                self.laborious = vertex
                raise Laborious("has more to be searched for secrets than others should wait for")
            self._secrets.add_json(rendered.body)
        subject = request_subject(rendered.type, change.action.value, rendered.provider)
        failed = self._state.attempts.failed(vertex)
        mark = self._mark
        attempt = f"{self._build.id}/{change.id}/{failed + 1}{mark}"
        return Request(
            vertex,
            self._build.id,
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

    def rendered(self, vertex: Vertex, work: Work | None = None) -> Rendered:
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
            scope = self._state.ledger.scope(vertex)
            most = _LEARNT_HERE if self._build.changes[vertex].sensitive else None
            return self._templates[vertex].render(
                scope, work=work or self._meter(vertex), inline=True, most=most
            )
        except Laborious:
            self.laborious = vertex
            raise

    def content(self, vertex: Vertex) -> tuple[Mapping[str, Any], str, str]:
        """A change as well as it can be rendered: its fields, type and provider.

        Raises:
            Laborious: it takes long to render it (`rendering`).
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
        """See to it that a change is rendered, as well as it can be, before anything is changed.

        Raises:
            Laborious: it takes long to render it (`rendering`).
        """
        try:
            self.take_in(vertex, self.rendered(vertex))
        except Laborious:
            raise
        except TemplateError as error:
            self.take_in(vertex, str(error))

    # Beside the loop.

    def rendering(self, vertex: Vertex) -> Callable[[Callable[[], bool]], Rendering]:
        """What renders a change that takes long, in a thread: while the plan goes on with others.

        It takes a function that says whether its time is over, and returns what is to be given to `take_in`.
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
        """What learns the secrets of a change that was rendered elsewhere, in a thread; None: there are none.

        To be done before `take_in`.
        """
        if isinstance(rendering, str) or self._is_learnt(self._build.changes[vertex], vertex, rendering):
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
        if self._renderings:
            self._renderings.pop(vertex, None)

    def put_back(self, vertex: Vertex) -> None:
        """What the rendering of a change has cost is not charged again the next time."""
        self._put_back[vertex] = None

    def take(self, vertex: Vertex) -> None:
        """A change begins with its request: what was kept for it is used up."""
        self.let_go(vertex)
        if self._put_back:
            self._put_back.pop(vertex, None)

    # Secrets.

    def learn_request(self, vertex: Vertex) -> None:
        """What was sent may hold secrets that an error quotes, and that stand in no reply.

        What takes long to be rendered is noted in `unlearned`; to be called again once it was taken in.
        """
        if not self._build.changes[vertex].sensitive:
            return
        try:
            # The request itself is of no use here.
            self.make(vertex)
        except Laborious:
            self.unlearned.append(vertex)
        except TemplateError:
            # It cannot be told what was sent: no more is known of it than was submitted.
            pass
        self.let_go(vertex)

    def look_through(self, request: Request, outcome: Outcome) -> Outcome:
        """A large reply, for a thread: its secrets are known from now on, what is large in it is packed."""
        if outcome.body is None:
            return outcome
        self._secrets.add(self.identified(request, outcome.body, State.COMPLETED), at_once=None)
        if self._build.changes[request.vertex].action is Action.FIND:
            # What it returned becomes components.
            return evolve(outcome, searched=True)
        return evolve(outcome, body=packed(outcome.body), searched=True)

    def look_at(self, request: Request, outcome: Outcome) -> tuple[Outcome, dict[str, Any] | None]:
        """A reply whose secrets are known from now on, and what is kept of it where it is a success.

        It is a failure where it is no reply to such a request.
        """
        if outcome.body is None:
            return outcome, None
        # As it is kept: what a connector leaves out says what is secret (`_secret`, the type), too.
        kept = self.identified(request, outcome.body, State.COMPLETED)
        ledger = self._state.ledger
        if outcome.searched:
            ledger.note_packed(request.vertex)
        else:
            self._secrets.add(kept)
        if outcome.completed and self._build.changes[request.vertex].action is Action.FIND:
            return ledger.checked_find(outcome.body), kept
        return outcome, kept

    def learn_output(self, vertex: Vertex, output: Mapping[str, Any]) -> None:
        """An operator supplies this for a change: its secrets are known from now on."""
        change = self._build.changes[vertex]
        # As it is kept: the type and `_secret` say what is secret, too.
        self._secrets.add(
            self._state.ledger.identified(
                vertex, output, State.COMPLETED, type_=change.type, provider=change.provider
            )
        )

    def identified(self, request: Request, body: Mapping[str, Any], state: State) -> dict[str, Any]:
        """A reply as ours to keep (`Ledger.identified`)."""
        return self._state.ledger.identified(
            request.vertex, body, state, type_=request.type, provider=request.provider
        )

    def _is_learnt(self, change: Change, vertex: Vertex, rendered: Rendered) -> bool:
        """Whether what is to be sent has no secrets that were not known when the build was read."""
        if not change.sensitive:
            return True
        # What looks like a reference, and is none, was passed over then.
        body = rendered.body
        return self._templates[vertex].constant and b"{{" not in body and b'"$(' not in body

    def _meter(self, vertex: Vertex) -> Work:
        """What is charged for rendering a change."""
        return Work() if vertex in self._put_back else self._work


def _is_open(word: str) -> bool:
    return "{" in word or "$" in word
