"""Builds for tests, and a synchronous driver that walks one through its plan."""

from collections.abc import Mapping
from typing import Any

import pytest

from scheduler.definition.graph import Vertex
from scheduler.definition.limits import DEFAULT_LIMITS, Limits
from scheduler.definition.rules import Retries
from scheduler.definition.strictjson import decode, encode
from scheduler.definition.template import OnUnresolved, Templates
from scheduler.definition.validation import Prepared, read_build
from scheduler.errors import InvalidBuild
from scheduler.journal.events import Retrying, Settled
from scheduler.plan import Plan, Request, ending
from scheduler.plan.outcome import Outcome, failure, read_reply
from scheduler.plan.summary import accepted_of, report_of

Document = dict[str, Any]


def change(name: str, action: str = "create", /, **fields: Any) -> Document:
    """A change as it is submitted; ``None`` as a value takes a field out."""
    document = {
        "_component_id": name,
        "_component": name.partition("::")[0] if "::" in name else "box",
        "_action": action,
        "_provider": "fake",
        "_state": "waiting",
        **fields,
    }
    return {key: value for key, value in document.items() if value is not None}


def build(
    *changes: Any,
    components: Any = (),
    edges: Any = (),
    **fields: Any,
) -> Document:
    """A build as it is submitted; pairs among the edges become edges."""
    return {
        "id": "b-1",
        "name": "test",
        "user_id": 1,
        "username": "somebody",
        "action": "build.create",
        "options": {},
        "components": list(components) if isinstance(components, tuple) else components,
        "changes": list(changes),
        "edges": [_edge(edge) for edge in edges] if isinstance(edges, list | tuple) else edges,
        **fields,
    }


def _edge(edge: Any) -> Any:
    return (
        dict(zip(("source", "destination", "length"), (*edge, 1), strict=True))
        if type(edge) is tuple
        else edge
    )


def prepare(
    document: Document,
    *,
    limits: Limits = DEFAULT_LIMITS,
    templates: Templates = Templates.ALL,
    unresolved: OnUnresolved = OnUnresolved.ERROR,
    resumed: bool = False,
) -> Prepared:
    """The build, read from its JSON."""
    data = encode(document)
    return read_build(data, limits=limits, templates=templates, unresolved=unresolved, resumed=resumed)


def problems_of(document: Document | bytes, limits: Limits = DEFAULT_LIMITS) -> list[str]:
    """Return the problems for which a build is refused; fail the test if it is accepted."""
    data = document if isinstance(document, bytes) else encode(document)
    with pytest.raises(InvalidBuild) as caught:
        read_build(data, limits=limits)
    return [str(problem) for problem in caught.value.problems]


class Run:
    """Drives the plan of one build by the ids of its components."""

    def __init__(
        self,
        document: Document,
        *,
        resumed: bool = False,
        templates: Templates = Templates.ALL,
        unresolved: OnUnresolved = OnUnresolved.ERROR,
        limits: Limits = DEFAULT_LIMITS,
        retries: Retries = (),
    ) -> None:
        prepared = prepare(
            document, templates=templates, unresolved=unresolved, limits=limits, resumed=resumed
        )
        self.plan = Plan(prepared, resumed=resumed, limits=limits, retries=retries)
        self.requests: dict[str, Request] = {}

    def vertex(self, name: str) -> Vertex:
        """The vertex with this id."""
        return self.plan.graph.index[name]

    def begin(self, name: str) -> Request | Settled | None:
        """Ask whether it may start; a request is kept, and not sent."""
        step = self.plan.begin(self.vertex(name))
        if isinstance(step, Request):
            self.requests[name] = step
        return step

    def send(self, name: str) -> Document:
        """Begin and send it; the body of its request."""
        step = self.begin(name)
        assert isinstance(step, Request), step
        self.plan.sent(step.vertex)
        body = decode(step.body)
        assert isinstance(body, dict)
        return body

    def refused(self, name: str) -> str:
        """Begin what cannot be sent; the text of its error."""
        step = self.begin(name)
        assert isinstance(step, Settled), step
        assert step.body["_state"] == "errored"
        text = step.body["error"]
        assert isinstance(text, str)
        return text

    def resume(self, name: str) -> Request | Settled:
        """Take up what an earlier process sent."""
        step = self.plan.resume(self.vertex(name))
        if isinstance(step, Request):
            self.requests[name] = step
        return step

    def reply(self, name: str, suffix: str | None = "done", /, **fields: Any) -> Settled:
        """The connector's reply: the request with these fields."""
        body = {**decode(self.requests[name].body), **fields}
        return self.answer(name, body, suffix)

    def answer(self, name: str, body: Document, suffix: str | None = "done") -> Settled:
        """A reply with exactly this body."""
        outcome = read_reply(encode(body), suffix)
        assert outcome is not None
        return self.settle(name, outcome)

    def settle(self, name: str, outcome: Outcome) -> Settled:
        """End the last attempt."""
        step = self.plan.settle(self.requests[name], outcome)
        assert isinstance(step, Settled), step
        return step

    def retry(self, name: str, outcome: Outcome | str = "broken", **more: float) -> Retrying:
        """End an attempt that is not the last one."""
        outcome = failure(outcome) if isinstance(outcome, str) else outcome
        step = self.plan.settle(self.requests[name], outcome, **more)
        assert isinstance(step, Retrying), step
        return step

    def phases(self) -> dict[str, str]:
        """Return the state of each change."""
        return {name: self.plan.phases[vertex].value for vertex, name in enumerate(self.plan.graph.ids)}

    def fail(self, name: str, error: str = "broken") -> Settled:
        """End the attempt without a reply."""
        return self.settle(name, failure(error))

    def do(self, *names: str, **fields: Any) -> None:
        """Send each and have it completed with these fields."""
        for name in names:
            self.send(name)
            self.reply(name, **fields)

    def report(self) -> Document:
        """The final report, as it goes out."""
        ending.finish(self.plan)
        report = report_of(self.plan)
        document = decode(b"".join(report.chunks()))
        assert isinstance(document, dict)
        return document

    def over(self) -> bool:
        """Whether the build has ended."""
        return self.plan.state.over

    def states(self) -> dict[str, str]:
        """The states of the changes, as they would be reported now."""
        changes: list[Mapping[str, Any]] = report_document(self.plan)["changes"]
        return {one["_component_id"]: one["_state"] for one in changes}

    def existing(self) -> dict[str, Document]:
        """The components as they would be reported now, by id."""
        components: list[Document] = report_document(self.plan)["components"]
        return {one["_component_id"]: one for one in components}


def report_document(plan: Plan) -> Document:
    """The report as whoever receives it reads it."""
    document: Document = decode(b"".join(report_of(plan).chunks()))
    return document


def accepted_document(plan: Plan) -> Document:
    """Return the build as it is handed to a store."""
    document: Document = decode(encode(accepted_of(plan).document))
    return document
