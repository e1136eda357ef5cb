"""Every message on the wire: its schema, its headers, and an example.

One file on purpose: it is a table, and each message stands in it once.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final, TypeAlias

from attrs import field, frozen
from msgspec import Struct

from scheduler.asyncapi import documents
from scheduler.asyncapi.schemas import schema_of
from scheduler.control.endpoint import VERBS
from scheduler.control.origins import SENDER_HEADER, USER_HEADER
from scheduler.control.registry import json_schema
from scheduler.control.verbs import Answer, BuildRequest
from scheduler.definition.schema import Schema, build_schema
from scheduler.dispatch.cancelling import GivenUp
from scheduler.dispatch.pulse import HEARTBEAT, WITHIN, Beat
from scheduler.dispatch.returned import Return
from scheduler.dispatch.sending import ATTEMPT, KEY
from scheduler.fleet.lease import Lease
from scheduler.fleet.ledger import ShareLedger
from scheduler.fleet.news import ORPHANS
from scheduler.jetstream.streams import MARK_HEADER, REPORT_HEADER, SUBJECT_HEADER, SUMMARY_HEADER
from scheduler.journal.records import (
    DIGEST_HEADER,
    HANGS_HEADER,
    LOADS_HEADER,
    ORDERS_HEADER,
    RECORD_HEADER,
    REMOVED_HEADER,
    STATUS_HEADER,
    TRACEPARENT_HEADER,
    TRACESTATE_HEADER,
    record_schema,
)
from scheduler.plan.schema import reply_schema
from scheduler.supervision.beat_feed import BeatEvent
from scheduler.supervision.feed import BuildEvent, ComponentEvent
from scheduler.supervision.passing_wire import EXPIRES_HEADER, INTAKE_HEADER, LOAD_HEADER
from scheduler.supervision.passing_wire import SENDER_HEADER as PASSED_SENDER_HEADER
from scheduler.supervision.peers import CandidateWords
from scheduler.tracing.context import TRACEPARENT, TRACESTATE

Headers: TypeAlias = Mapping[str, str]
"""Descriptions of headers, by name."""

JSON: Final = "application/json"
TEXT: Final = "text/plain"
BYTES: Final = "application/octet-stream"
NONE: Final[Headers] = {}
_ANYTHING: Final[Schema] = {"type": "object"}
_EMPTY: Final[Schema] = {"type": "string", "maxLength": 0}
_REFUSED: Final[Headers] = {
    "Nats-Service-Error": "Why it is refused.",
    "Nats-Service-Error-Code": "Number of the code, as in HTTP.",
}
_PASSED: Final[Headers] = {
    USER_HEADER: "Account and user that the broker vouched for where it came in, percent-encoded.",
    SENDER_HEADER: "Sender that takes turns with others, percent-encoded.",
}
_ONCE: Final[Headers] = {
    "Nats-Expected-Last-Subject-Sequence": "Number of the last message on this subject: compare-and-set."
}
_TIME: Final = 1_800_000_000.5
_REQUEST: Final = {
    "_component_id": "vpc::main",
    "_component": "vpc",
    "_provider": "aws",
    "_action": "create",
    "_state": "running",
    "service": "b-1",
    "subnet": "10.0.0.0/16",
}
_CHANGE: Final = {**_REQUEST, "_state": "waiting"}
_BUILD: Final = {"id": "b-1", "action": "build.create", "changes": [_CHANGE]}
_REPORT: Final = {**_BUILD, "components": [], "edges": []}
_LEASE: Final = {
    "instance": "host-1",
    "name": "scheduler-0",
    "version": "1.0.0",
    "renewed": _TIME,
    "count": 7,
}


@frozen
class MessageEntry:
    """A message: what it says, and what it has to be."""

    name: str
    """Key in the document."""
    summary: str
    """One line."""
    schema: Schema = field(repr=False)
    """JSON Schema of its body; of a body that is no JSON, as text."""
    examples: tuple[Any, ...] = field(default=(), repr=False)
    headers: Headers = NONE
    content: str = JSON
    """MIME type of the body."""


def _progress() -> Schema:
    schema = schema_of(documents.ProgressDocument)
    told = [schema_of(kind) for kind in (ComponentEvent, BuildEvent, BeatEvent)]
    for one in told:
        schema["$defs"] |= one.pop("$defs")
    component, build, beat = told
    properties = schema["$defs"][documents.ProgressDocument.__name__]["properties"]
    properties["events"]["items"] = {"anyOf": [component, build]}
    properties["beats"]["items"] = beat
    return schema


_TRACED: Final = {
    TRACEPARENT: "Trace context, where the build has one; its name is read in any case.",
    TRACESTATE: "The rest of it.",
}
"""Headers of a build, and of its requests."""


def _first_line(type_: type) -> str:
    return (type_.__doc__ or "").partition("\n")[0]


def _of(name: str, type_: type[Struct], *examples: Any, headers: Headers = NONE) -> MessageEntry:
    """Return the message with this structure, whose docstring says what it is."""
    return MessageEntry(name, _first_line(type_), schema_of(type_), examples, headers)


def _builds() -> Iterator[MessageEntry]:
    passed = {
        INTAKE_HEADER: "Subject on which it came in.",
        PASSED_SENDER_HEADER: "Its sender, percent-encoded.",
        EXPIRES_HEADER: "Seconds since 1970 after which it is not taken any more.",
        **_TRACED,
    }
    load = {LOAD_HEADER: "Among instances: renewals of the lease there, and its active components."}
    yield MessageEntry("build", "A build to be run.", build_schema(), (_BUILD,), _TRACED)
    yield MessageEntry(
        "passedBuild",
        "A build that another instance passes on, as it came.",
        build_schema(),
        (_BUILD,),
        passed,
    )
    yield _of(
        "uploadedBuild", documents.UploadedBuild, {"id": "b-1", "object": "upload/3f9a"}, headers=_TRACED
    )
    yield _of("buildAccepted", documents.BuildAccepted, {"id": "b-1", "status": "accepted"}, headers=load)
    error = {"code": "invalid", "message": "1 problem", "details": ["changes[3]._provider: is missing"]}
    rejected = {"id": "b-1", "status": "rejected", "error": error}
    yield _of("buildRejected", documents.BuildRejected, rejected, headers=load)
    errored = {**_REPORT, "error": "vpc::main: timed out after 3600 s"}
    told = {ATTEMPT: "Id of the report: the same for copies of it."}
    yield _of("report", documents.ReportDocument, _REPORT, errored, headers=told)
    lists = ["components", "changes", "edges"]
    reduced = {
        "id": "b-1",
        "action": "build.create",
        "omitted": lists,
        "object": "scheduler.report.b-1.1.json",
    }
    yield _of("reducedReport", documents.ReducedReport, reduced, headers=told)
    yield _of("refusedBuild", documents.RefusedBuild, {**_BUILD, "error": "b-1: 1 problem"})


def _connectors() -> Iterator[MessageEntry]:
    headers = {
        ATTEMPT: "Id of the attempt: <build>/<component>/<n>/<mark>.",
        KEY: "Key of the component, the same for all its attempts: <build>/<component>/<mark>.",
        HEARTBEAT: "Subject for heartbeats.",
        WITHIN: "Seconds within which a heartbeat has to come, where they are asked for.",
        **_TRACED,
    }
    replied = {"Nats-Service-Error": "The attempt failed: why."}
    done = {**_REQUEST, "_state": "completed", "vpc_aws_id": "vpc-1"}
    failed = {**_REQUEST, "_state": "errored", "error": "throttled", "retry_after": 30}
    yield _of("request", documents.RequestDocument, _REQUEST, headers=headers)
    yield MessageEntry("reply", "The component as it is now.", reply_schema(), (done, failed), replied)
    yield _of("sharedReply", documents.SharedReplyDocument, done, failed)
    yield _of("heartbeat", Beat, {"instance": "host-7", "progress": 0.4, "message": "4 of 10 nodes"})
    given_up = {"attempt": "b-1/vpc::main/1/5f0c9a1e", "key": "b-1/vpc::main/5f0c9a1e", "build": "b-1"}
    given_up |= {"component": "vpc::main", "reason": "timed out after 3600 s"}
    yield _of("givenUp", GivenUp, given_up)
    yield _of("returned", Return, {"attempts": [given_up["attempt"]], "instance": "host-7"})
    any_record: Schema = {"type": "string"}
    yield MessageEntry("connectorRecord", "What a connector of the kit did.", any_record, content=BYTES)


def _watchers() -> Iterator[MessageEntry]:
    retrying = {"seq": 41, "time": _TIME, "component": "vpc::main", "state": "retrying", "attempt": 1}
    paused = {"seq": 42, "time": _TIME, "event": "paused", "by": "ann", "vouched": True}
    counts = {"waiting": 1, "running": 0, "retrying": 1, "completed": 0, "errored": 0, "skipped": 0}
    head = {"v": 2, "build": "b-1", "source": "5f0c9a1e", "seq": 42, "time": _TIME, "total": 2, "done": 0}
    progress = {**head, "counts": counts, "events": [{**retrying, "error": "throttled"}, paused]}
    beat = {"component": "vpc::main", "attempt": 1, "time": _TIME, "progress": 0.4}
    beats = {**head, "counts": counts, "events": [], "beats": [beat]}
    text = _first_line(documents.ProgressDocument)
    yield MessageEntry("progress", text, _progress(), (progress, beats))


def _operators() -> Iterator[MessageEntry]:
    kinds: dict[str, type[Answer]] = {}
    for verb, entry in VERBS.items():
        yield _verb(entry.request, request_of(verb))
        kinds[answer_of(entry.request)] = entry.request.answer
    for name, answer in kinds.items():
        yield MessageEntry(name, _first_line(answer), json_schema(answer))
    refusal = {"id": "b-1", "error": {"code": "unknown", "message": "there is no build b-1"}}
    yield _of("verbRefused", documents.VerbRefused, refusal, headers=_REFUSED)


def _verb(request: type[BuildRequest], name: str) -> MessageEntry:
    schema = json_schema(request)
    needed = {member: _NEEDED[member] for member in schema.get("required", ())}
    return MessageEntry(name, _first_line(request), schema, (needed,), _PASSED)


_NEEDED: Final[Mapping[str, Any]] = {
    "id": "b-1",
    "component": "vpc::main",
    "seconds": 600,
    "limits": {"vpc.create.*": 5},
}
"""Example of each member that some verb requires."""


def request_of(verb: str) -> str:
    """Return the name of the message with the request for a verb."""
    return f"{verb}Request"


def answer_of(request: type[BuildRequest]) -> str:
    """Return the name of the message with the answer to a request; several verbs have the same."""
    name = request.answer.__name__
    return f"{name[0].lower()}{name[1:]}Answer"


def _instances() -> Iterator[MessageEntry]:
    yield _of("presence", documents.PresenceDocument, {"instance": "host-1"})
    yield _of("candidate", CandidateWords, {"id": "5f0c9a1e"}, {"id": "5f0c9a1e", "decided": False})
    news = {"type": "string", "enum": ["", ORPHANS.decode()]}
    yield MessageEntry(
        "news", "Word that leases have changed, or that a build has no owner.", news, ("",), content=TEXT
    )
    name: Schema = {"type": "string"}
    yield MessageEntry(
        "sharesChanged",
        "Name of the process that has changed the shares of limits.",
        name,
        ("host-1",),
        content=TEXT,
    )
    yield _of("lease", Lease, _LEASE, headers=_ONCE)
    holder = {"name": "scheduler-0", "limits": {"vpc.create.*": 5}, "shares": {"vpc.create.*": 3}}
    yield _of("shares", ShareLedger, {"version": 1, "holders": {"host-1": holder}}, headers=_ONCE)


def _kept() -> Iterator[MessageEntry]:
    marks = {
        RECORD_HEADER: "Id of the record.",
        STATUS_HEADER: "Status of the build after it.",
        LOADS_HEADER: "Number of times that processes began to load the build and did not end that.",
        HANGS_HEADER: "Number of processes that hung while they had the build.",
        DIGEST_HEADER: "Digest of the build, on its first record.",
        TRACEPARENT_HEADER: "Trace context of the build, on its first record, where it has one.",
        TRACESTATE_HEADER: "The rest of it.",
        ORDERS_HEADER: "Orders of operators that the record carries out.",
        REMOVED_HEADER: "Set on what is left of a log that was removed.",
        ATTEMPT: "Id of the message: a copy of it is not stored.",
        **_ONCE,
    }
    events = [
        {"event": "sent", "component": "vpc::main", "attempt": "b-1/vpc::main/1/5f0c9a1e", "time": _TIME}
    ]
    record = {
        "v": 1,
        "n": 7,
        "epoch": 2,
        "instance": "host-1",
        "record_id": "5f0c9a1e-7",
        "at": 1_800_000_000_000,
    }
    record |= {"reply_position": [815, 1_800_000_000_000_000_000], "events": events}
    yield MessageEntry(
        "record", "All that became true of a build since its last record.", record_schema(), (record,), marks
    )
    stored = {
        SUBJECT_HEADER: "Subject on which it is published.",
        SUMMARY_HEADER: "Summary for lists of builds, as JSON.",
        REPORT_HEADER: "Id with which it is published.",
        MARK_HEADER: "Mark of the acceptance of the build.",
        **_ONCE,
    }
    yield MessageEntry(
        "storedReport",
        "Report of a run, before it is published.",
        schema_of(documents.ReportDocument),
        (_REPORT,),
        stored,
    )
    reduced = {
        "id": "b-1",
        "omitted": ["components", "changes", "edges"],
        "object": "scheduler.report.b-1.1.json",
    }
    yield MessageEntry(
        "storedReducedReport",
        "Report whose lists are in an object.",
        schema_of(documents.ReducedReport),
        (reduced,),
        stored,
    )
    yield MessageEntry("chunk", "Part of an object.", {"type": "string"}, content=BYTES)
    meta: dict[str, Any] = {
        "name": "scheduler.report.b-1.1.json",
        "bucket": "SCHEDULER_OBJECTS",
        "nuid": "5f0c9a1e",
    }
    meta |= {"size": 4, "chunks": 1, "digest": "SHA-256=n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg="}
    yield _of("object", documents.ObjectDocument, meta, headers=_ONCE)


def _broker() -> Iterator[MessageEntry]:
    pong = {
        "type": "io.nats.micro.v1.ping_response",
        "name": "scheduler",
        "id": "5f0c9a1e",
        "version": "1.0.0",
    }
    yield _of("discovery", documents.DiscoveryDocument, {**pong, "metadata": {"store": "jetstream"}})
    yield MessageEntry("brokerRequest", "Request to the API of the broker.", {"type": ["object", "string"]})
    yield MessageEntry("brokerAnswer", "Answer of the broker.", _ANYTHING)
    yield MessageEntry("empty", "Nothing: the message itself says it.", _EMPTY, ("",), content=TEXT)
    yield MessageEntry(
        "trial", "Anything: `scheduler doctor` times how it is stored.", {"type": "string"}, content=BYTES
    )


def _ernest() -> Iterator[MessageEntry]:
    yield _of("ernestMapping", documents.ErnestMapping, {"id": "b-1", "mapping": _BUILD})
    yield _of("ernestQuestion", documents.ErnestQuestion, {"id": "b-1"})
    yield _of("ernestStatus", documents.ErnestStatus, {"status": "in_progress"})
    yield MessageEntry(
        "ernestComponent", "A component, with the id of its build as `service`.", _ANYTHING, (_REQUEST,)
    )
    found: Schema = {"type": "array", "items": _ANYTHING}
    yield MessageEntry(
        "ernestFound",
        "Builds of that status.",
        found,
        ([{"id": "b-1", "status": "in_progress", "type": "apply"}],),
    )
    yield _of("ernestRefusal", documents.ErnestRefusal, {"_error": "record not found"})


@cache
def messages() -> Mapping[str, MessageEntry]:
    """Return all messages, by name."""
    groups = (
        _builds(),
        _connectors(),
        _watchers(),
        _operators(),
        _instances(),
        _kept(),
        _broker(),
        _ernest(),
    )
    return {message.name: message for group in groups for message in group}
