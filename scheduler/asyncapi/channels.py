"""Every subject of the wire, in groups, with the messages on it.

Subjects are those constants by which the code subscribes and publishes. A word in braces stands for a token.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import product
from typing import Final

from attrs import field, frozen

from scheduler.asyncapi.messages import answer_of, request_of
from scheduler.bus.interest import SUBJECT as CONNECTIONS
from scheduler.bus.server import SUBJECT as SERVER
from scheduler.control.endpoint import VERBS as CONTROLS
from scheduler.definition.reply_subjects import BEAT, REPLY
from scheduler.definition.subjects import CONTROL, EVENTS, SUFFIXES, VERBS
from scheduler.diagnosis.permissions import DOCTOR_SUBJECT
from scheduler.dispatch.cancelling import CANCEL
from scheduler.dispatch.returned import RETURNED
from scheduler.fleet.absences import INSTANCE, PING
from scheduler.fleet.bucket import ELECTION, LEASES, LIMITS
from scheduler.fleet.news import NEWS
from scheduler.fleet.roll import ROLL
from scheduler.fleet.sharing import CHANGED
from scheduler.jetstream.streams import BUCKET, LOGS, STORED_REPORTS
from scheduler.stores import ernest_protocol as ernest
from scheduler.supervision import intake
from scheduler.supervision.passing_wire import SUBMIT
from scheduler.supervision.peers import CANDIDATES

INBOX: Final = "inbox"
"""Name of the channel for answers, which go to whatever subject a request names."""
_WORD: Final = re.compile(r"\{(\w+)\}")
_INBOXES: Final = ("_INBOX.>", "_R_.>")
_ERNEST: Final = {
    ernest.SET_MAPPING: ("ernestMapping", "empty"),
    ernest.GET_MAPPING: ("ernestQuestion", "build"),
    ernest.SET_CHANGE: ("ernestComponent", "empty"),
    ernest.SET_COMPONENT: ("ernestComponent", "empty"),
    ernest.DELETE_COMPONENT: ("ernestComponent", "empty"),
    ernest.FIND: ("ernestStatus", "ernestFound"),
}
"""Question to an Ernest store and its answer, by subject."""


@frozen
class Parameter:
    """A token of a subject that is not always the same."""

    text: str
    """Description."""
    words: tuple[str, ...] = ()
    """All that it may be, if that is known."""
    tokens: bool = False
    """Whether it stands for all tokens to the end, and not for one."""
    example: str = ""
    """Word that the shipped permissions have, where they have one only."""

    @property
    def choices(self) -> tuple[str, ...]:
        """Tokens of the subjects in the notation of NATS."""
        return self.words or (self.example or (">" if self.tokens else "*"),)


@frozen
class Channel:
    """A subject, or all that differ in some tokens only."""

    name: str
    """Key in the document."""
    address: str
    """Subject, with parameters in braces; empty where it is drawn for each request."""
    group: str
    """Tag."""
    text: str
    """One line: what is said here."""
    messages: tuple[str, ...]
    """Names of its messages."""
    parameters: Mapping[str, Parameter] = field(factory=dict)
    reply: tuple[str, ...] = ()
    """Names of the messages that answer; none where nothing does."""
    reply_on: str = INBOX
    """Name of the channel on which they come."""
    queue: str = ""
    """Queue group of the subscribers, if they share what comes."""

    @property
    def subjects(self) -> tuple[str, ...]:
        """Subjects in the notation of NATS: one for each choice of words, ``*`` or ``>`` for all else."""
        if not self.address:
            return _INBOXES
        # Every other part is the name of a parameter.
        parts = _WORD.split(self.address)
        choices = [
            self.parameters[part].choices if place % 2 else (part,) for place, part in enumerate(parts)
        ]
        return tuple("".join(chosen) for chosen in product(*choices))


def _words(subjects: Iterable[str], place: int) -> tuple[str, ...]:
    return tuple(dict.fromkeys(subject.split(".")[place] for subject in subjects))


_KIND: Final = Parameter("What the build is for, in Ernest's words.", _words(intake.SUBJECTS, 0))
_WHAT: Final = Parameter("What is to be done.", _words(intake.SUBJECTS, 1))
_OUTCOME: Final = Parameter("Whether it succeeded.", SUFFIXES)
_TYPE: Final = Parameter("Type of the component: `_component`.")
_VERB: Final = Parameter("What is to be done: `_action`.", VERBS)
_PROVIDER: Final = Parameter("Its provider: `_provider`.")
_OWNER: Final = Parameter("Name of the process that sent the request.")
_TOKEN: Final = Parameter("Word of this attempt, which cannot be guessed.")
_BUILD: Final = Parameter("Id of the build, every byte outside [A-Za-z0-9_-] as =XX.")
_INSTANCE: Final = Parameter("Key of the lease of an instance, encoded as ids of builds are.")
_REST: Final = Parameter("Any tokens.", tokens=True)
_REQUEST: Final = {"type": _TYPE, "verb": _VERB, "provider": _PROVIDER}
_ATTEMPT: Final = {"owner": _OWNER, "provider": _PROVIDER, "token": _TOKEN}


def _builds() -> Iterator[Channel]:
    group, build = "builds", {"kind": _KIND, "what": _WHAT}
    answers = ("buildAccepted", "buildRejected")
    text = "Builds come in; the subject is the build's action."
    yield Channel(
        "builds",
        "{kind}.{what}",
        group,
        text,
        ("build", "uploadedBuild"),
        build,
        answers,
        queue=intake.QUEUE_GROUP,
    )
    text = "The report of a run; on error also a build that was refused and had no reply subject."
    told = ("report", "reducedReport", "refusedBuild")
    yield Channel("reports", "{kind}.{what}.{outcome}", group, text, told, {**build, "outcome": _OUTCOME})
    text = "Progress of a build, at most ten times a second."
    yield Channel("progress", EVENTS + "{build}", group, text, ("progress",), {"build": _BUILD})


def _connectors() -> Iterator[Channel]:
    group, request = "connectors", "{type}.{verb}.{provider}"
    text = "A component for a connector to create, change, delete or find."
    yield Channel("requests", request, group, text, ("request",), _REQUEST, ("reply",), "replies")
    text = "The reply to one request, on the subject that it names."
    yield Channel("replies", REPLY + "{owner}.{provider}.{token}", group, text, ("reply",), _ATTEMPT)
    text = "The same, for requests of versions whose reply subjects had no owner."
    yield Channel("earlierReplies", REPLY + "{token}", group, text, ("reply",), {"token": _TOKEN})
    text = "Replies of connectors that do not use the reply subject; every instance hears them."
    shared = {**_REQUEST, "outcome": _OUTCOME}
    yield Channel("sharedReplies", request + ".{outcome}", group, text, ("sharedReply",), shared)
    text = "Heartbeats of an attempt, on the subject that the request names in a header."
    yield Channel(
        "heartbeats", BEAT + "{owner}.{provider}.{token}", group, text, ("heartbeat", "empty"), _ATTEMPT
    )
    text = "Word that an attempt was given up."
    yield Channel("cancellations", CANCEL + request, group, text, ("givenUp",), _REQUEST)
    text = "A connector is back, and has not answered these attempts."
    yield Channel("returns", RETURNED + "{provider}", group, text, ("returned",), {"provider": _PROVIDER})
    text = "The record of a connector of the kit, in a bucket."
    rest = {"bucket": Parameter("Name of the bucket.", example="connectors_aws"), "key": _REST}
    yield Channel("connectorRecords", "$KV.{bucket}.{key}", group, text, ("connectorRecord",), rest)


def _operators() -> Iterator[Channel]:
    for name, verb in CONTROLS.items():
        answers = (answer_of(verb.request), "verbRefused")
        yield Channel(
            name,
            CONTROL + name,
            "control",
            (verb.request.__doc__ or "").partition("\n")[0],
            (request_of(name),),
            reply=answers,
            queue=intake.QUEUE_GROUP,
        )


def _instances() -> Iterator[Channel]:
    group, one = "instances", {"instance": _INSTANCE}
    to = INSTANCE + "{instance}."
    text = "A build that one instance passes on to another."
    answers = ("empty", "buildAccepted", "buildRejected")
    yield Channel("passedBuilds", to + SUBMIT, group, text, ("passedBuild",), one, answers)
    text = "The question whether an instance is there."
    yield Channel("pings", to + PING, group, text, ("empty",), one, ("presence",))
    answered = dict.fromkeys(answer_of(verb.request) for verb in CONTROLS.values())
    text = "A question or a command that is passed on to the owner of the build."
    yield Channel(
        "passedQuestions",
        to + "{verb}",
        group,
        text,
        tuple(map(request_of, CONTROLS)),
        {**one, "verb": Parameter("The verb, as it came in.", tuple(CONTROLS))},
        (*answered, "verbRefused"),
    )
    text = "The question which schedulers with an Ernest store stand by."
    yield Channel("standby", ROLL, group, text, ("empty",), reply=("lease",))
    text = "A scheduler that begins asks whether another one does."
    yield Channel("candidates", CANDIDATES, group, text, ("candidate",), reply=("candidate",))
    yield Channel("news", NEWS, group, "Instances are to look at the leases now.", ("news",))
    yield Channel("limitNews", CHANGED, group, "Instances are to look at the limits now.", ("sharesChanged",))
    yield Channel("leases", LEASES + "{instance}", group, "Lease of an instance.", ("lease", "empty"), one)
    key = {"key": Parameter("Key of the lease.")}
    text = "Lease of the one scheduler that works with an Ernest store."
    yield Channel("election", ELECTION + "{key}", group, text, ("lease", "empty"), key)
    yield Channel("limits", LIMITS, group, "Shares of the limits over all instances.", ("shares",))


def _kept() -> Iterator[Channel]:
    group, build = "streams", {"build": _BUILD}
    yield Channel("logs", LOGS + "{build}", group, "Log of a build.", ("record", "empty"), build)
    run = {**build, "run": Parameter("Number of the run, from 1.")}
    text = "Reports as they are stored, before they are published."
    stored = ("storedReport", "storedReducedReport")
    yield Channel("storedReports", STORED_REPORTS + "{build}.{run}", group, text, stored, run)
    nuid = {"nuid": Parameter("Name of one version of an object.")}
    text = "Builds and reports that are too large for a message, in parts."
    yield Channel("chunks", f"$O.{BUCKET}.C.{{nuid}}", group, text, ("chunk",), nuid)
    name = {"name": Parameter("Name of the object, in base64.")}
    yield Channel(
        "objects", f"$O.{BUCKET}.M.{{name}}", group, "What objects there are.", ("object", "empty"), name
    )
    begin, _, _ = DOCTOR_SUBJECT.rpartition(".")
    text = "Trials of `scheduler doctor`, in a stream that it deletes."
    yield Channel(
        "trials", begin + ".{trial}", group, text, ("trial",), {"trial": Parameter("Name of the trial.")}
    )


def _broker() -> Iterator[Channel]:
    group, text = "broker", "Service discovery: who is there."
    discovery = {
        "verb": Parameter("What is asked.", ("PING", "INFO", "STATS")),
        "service": Parameter("Name of the service: scheduler, or connector-<provider>."),
        "id": Parameter("Id of one of its processes."),
    }
    for name, rest in {
        "discovery": "",
        "discoveryOfService": ".{service}",
        "discoveryOfProcess": ".{service}.{id}",
    }.items():
        address = "$SRV.{verb}" + rest
        known = {key: discovery[key] for key in _WORD.findall(address)}
        yield Channel(name, address, group, text, ("empty",), known, ("discovery",))
    api = {"request": _REST}
    text = "The API of JetStream: streams, consumers, messages of a stream."
    yield Channel("jetstream", "$JS.API.{request}", group, text, ("brokerRequest",), api, ("brokerAnswer",))
    for name, subject, text in (
        ("connections", CONNECTIONS, "The question who is connected, and subscribes to what."),
        ("server", SERVER, "The question which server this is, and who we are."),
    ):
        yield Channel(name, subject, group, text, ("brokerRequest",), reply=("brokerAnswer",))


def _stored_by_ernest() -> Iterator[Channel]:
    for subject, (question, answer) in _ERNEST.items():
        _, *words = subject.split(".")
        name = "ernest" + "".join(word.capitalize() for word in words)
        text = "Question to an Ernest store, where builds are kept in one."
        yield Channel(name, subject, "ernest", text, (question,), reply=(answer, "ernestRefusal"))


@cache
def channels() -> Mapping[str, Channel]:
    """Return all channels, by name."""
    groups = (_builds(), _connectors(), _operators(), _instances(), _kept(), _broker(), _stored_by_ernest())
    found = [channel for group in groups for channel in group]
    answers = dict.fromkeys(name for one in found if one.reply_on == INBOX for name in one.reply)
    text = "Answers, on the subject that the request names."
    found.append(Channel(INBOX, "", "answers", text, tuple(answers)))
    return {channel.name: channel for channel in found}
