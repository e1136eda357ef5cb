"""The OpenAPI document of the page, made of the structures of its answers and of the control API."""

from functools import cache
from typing import Any, Final

import msgspec
from attrs import frozen

from scheduler import __version__
from scheduler.control.verbs import Document, Done, Reasons, ReportPart
from scheduler.web.page import answers
from scheduler.web.page.components import MOST
from scheduler.web.page.times import MOST_EVENTS

_REF: Final = "#/components/schemas/{name}"
_FAILURES: Final = {
    400: "The request is wrong; the text names the member.",
    401: "A token is needed.",
    404: "There is no such build, component or path.",
    421: "The host is none of ours.",
    503: "The owner of the build does not answer, or the scheduler starts or stops.",
}
_OF_ORDERS: Final = {
    403: "No orders are taken from this user, or this comes from another page.",
    409: "The build is not such that this can be done.",
    410: "The order came too late.",
    413: "The request is too large.",
}


@frozen
class _Parameter:
    name: str
    schema: Document
    text: str
    place: str = "query"

    def document(self) -> Document:
        return {
            "name": self.name,
            "in": self.place,
            "required": self.place == "path",
            "description": self.text,
            "schema": self.schema,
        }


def _text(name: str, text: str) -> _Parameter:
    return _Parameter(name, {"type": "string"}, text)


def _number(name: str, low: int, high: int, default: int | None, text: str) -> _Parameter:
    schema: Document = {"type": "integer", "minimum": low, "maximum": high}
    return _Parameter(name, schema if default is None else schema | {"default": default}, text)


_ID: Final = _Parameter("id", {"type": "string", "minLength": 1}, "Id of the build, percent-encoded.", "path")
_COMPONENT: Final = _Parameter(
    "component", {"type": "string", "minLength": 1}, "Id of a component, percent-encoded.", "path"
)
_BUILD: Final = "/api/builds/{id}"


@frozen
class _Operation:
    """Question or command."""

    path: str
    answer: type[msgspec.Struct] | None
    text: str
    parameters: tuple[_Parameter, ...] = ()
    events: tuple[type[msgspec.Struct], ...] = ()
    """Structures of the events of a stream."""
    body: type[msgspec.Struct] | None = None


_OPERATIONS: Final = (
    _Operation("/api/session", answers.Session, "Who asks, and what they may do."),
    _Operation(
        "/api/builds",
        answers.BuildList,
        "Builds of all instances.",
        (
            _text("state", "Statuses, separated by commas; also active, finished and failed."),
            _text("search", "Text in id, name, action, owner or error."),
            _number("limit", 1, 1_000, 200, "Most builds."),
            _text("after", "The `next` of the page before."),
        ),
    ),
    _Operation(_BUILD, answers.Status, "A build as it stands.", (_ID,)),
    _Operation(f"{_BUILD}/layout", answers.Layout, "Where its components stand.", (_ID,)),
    _Operation(f"{_BUILD}/states", answers.States, "States of its components.", (_ID,)),
    _Operation(
        f"{_BUILD}/components",
        answers.ComponentPage,
        "Its components.",
        (
            _ID,
            _text("search", "Text in id, error or the last word of the connector."),
            _text("state", "States, separated by commas."),
            _text("type", "Type."),
            _Parameter("sort", {"enum": ["age", "id", "state"], "default": "age"}, "Order."),
            _number("limit", 1, MOST, 200, "Most components."),
            _number("after", 0, 10**9, 0, "The `next` of the page before."),
        ),
    ),
    _Operation(
        f"{_BUILD}/components/{{component}}",
        answers.ComponentDetail,
        "One component, with its neighbours.",
        (_ID, _COMPONENT),
    ),
    _Operation(f"{_BUILD}/timeline", answers.TimelineAnswer, "When each component ran.", (_ID,)),
    _Operation(
        f"{_BUILD}/events",
        answers.EventPage,
        "What happened.",
        (
            _ID,
            _number("limit", 1, MOST_EVENTS, 500, "Most events."),
            _number("after", -1, 10**9, 0, "The `next` of the page before; -1: the last page."),
        ),
    ),
    _Operation(
        f"{_BUILD}/report",
        ReportPart,
        "Its report, with secrets masked.",
        (
            _ID,
            _number("run", 1, 10**9, None, "Number of the run."),
            _number("from", 0, 10**9, 0, "Number of the first entry."),
            _text("identity", "Id of the report, from its first page."),
            _text("component", "Id of a component."),
            _text("field", "Path of a field."),
            _number("limit", 1, 1_000, 1_000, "Most entries."),
        ),
    ),
    _Operation(
        f"{_BUILD}/why", Reasons, "What it waits for.", (_ID, _text("component", "Id of a component."))
    ),
    _Operation(f"{_BUILD}/plan", answers.PlanAnswer, "Its prediction, and what happened.", (_ID,)),
    _Operation(
        "/api/stream",
        None,
        "All builds, live.",
        events=(answers.BuildsSnapshot, answers.BuildsUpdate, answers.End),
    ),
    _Operation(
        f"{_BUILD}/stream",
        None,
        "A build, live.",
        (_ID,),
        events=(answers.Snapshot, answers.Update, answers.End),
    ),
    _Operation(f"{_BUILD}/orders", Done, "Give an order.", (_ID,), body=answers.OrderRequest),
)


@cache
def openapi() -> Document:
    """Return the document."""
    structs: set[type[msgspec.Struct]] = {answers.Failure}
    for one in _OPERATIONS:
        structs |= {struct for struct in (one.answer, one.body, *one.events) if struct is not None}
    in_order = sorted(structs, key=lambda struct: struct.__name__)
    _, schemas = msgspec.json.schema_components(in_order, ref_template=_REF)
    paths: dict[str, Document] = {}
    for operation in _OPERATIONS:
        method = "get" if operation.body is None else "post"
        paths.setdefault(operation.path, {})[method] = _document_of(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Scheduler",
            "version": __version__,
            "description": "The page of the scheduler: builds, and the control API over HTTP.",
        },
        "servers": [{"url": ".."}],
        "security": [{"token": []}, {}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _document_of(operation: _Operation) -> Document:
    failures = _FAILURES | (_OF_ORDERS if operation.body is not None else {})
    document: Document = {
        "summary": operation.text,
        "operationId": _name_of(operation),
        "parameters": [one.document() for one in operation.parameters],
        "responses": {"200": _success(operation)}
        | {str(status): _json(answers.Failure, text) for status, text in sorted(failures.items())},
    }
    if operation.body is not None:
        document["requestBody"] = _json(operation.body, None) | {"required": True}
    return document


def _name_of(operation: _Operation) -> str:
    words = [word.strip("{}") for word in operation.path.split("/") if word not in {"", "api", "{id}"}]
    first, *rest = ["one", *words] if operation.path == _BUILD else words
    return first + "".join(word.capitalize() for word in rest)


def _success(operation: _Operation) -> Document:
    if operation.answer is not None:
        return _json(operation.answer, "The answer.")
    names = ", ".join(f"`{struct.__name__}`" for struct in operation.events)
    return {
        "description": f"Server-sent events; their data, in the order snapshot, update, end: {names}.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }


def _json(struct: type[msgspec.Struct], text: str | None) -> Document:
    content: dict[str, Any] = {"schema": {"$ref": _REF.format(name=struct.__name__)}}
    document: Document = {"content": {"application/json": content}}
    return document if text is None else {"description": text} | document
