"""The verbs of ``scheduler.build.VERB``, each as the structure of what it takes (WIRE: "Control").

The name of a structure, in lower case, is its verb. Requests are checked against it, service discovery
shows its JSON Schema (`scheduler.control.registry`), and the command line fills it in. Members that a
structure does not have are ignored: an operator's program may be newer than the scheduler.

This module is loaded by the command line, so it imports no other part of the service. One file on purpose:
whoever asks reads in one place what can be asked.
"""

from typing import Annotated, Any, ClassVar, Final, TypeAlias, cast

import msgspec
from msgspec import UNSET, Meta, UnsetType, field

Document: TypeAlias = dict[str, Any]
"""A JSON object."""

PAGE: Final = 1_000
"""Builds or components in one answer."""

Text: TypeAlias = Annotated[str, Meta(min_length=1)]
BuildId: TypeAlias = Annotated[str, Meta(min_length=1, description="Id of the build.")]
ComponentId: TypeAlias = Annotated[str, Meta(min_length=1, description="Id of a component of the build.")]
OrderId: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64, pattern="^[A-Za-z0-9_-]+$")]
PageSize: TypeAlias = Annotated[int, Meta(ge=1, description=f"Most entries in the answer, up to {PAGE:,}.")]

Owner: TypeAlias = Annotated[str, Meta(description="Instance that has the build.")]
Epoch: TypeAlias = Annotated[int, Meta(description="Number of processes that had the build so far.")]


# Answers.


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to a verb. Where another wing makes the document, it describes its main members only."""


class Done(Answer, frozen=True, kw_only=True):
    """Answer to a command, sent when the change is persisted."""

    id: str
    status: Annotated[str, Meta(description="Status of the build after the command.")]
    text: Annotated[str, Meta(description="What was done, as a sentence.")]
    components: Annotated[int, Meta(description="Components that it was done to.")] | UnsetType = UNSET


class Builds(Answer, frozen=True, kw_only=True):
    """Page of builds, by id."""

    builds: list[Document]
    next: Annotated[str | None, Meta(description="Where the next page starts: its `after`.")]
    silent: (
        Annotated[
            list[Document], Meta(description="Instances that did not answer: their builds are missing.")
        ]
        | UnsetType
    ) = UNSET


class BuildState(Answer, frozen=True, kw_only=True):
    """State of a build, and a page of its components."""

    id: str
    status: str
    counts: Annotated[dict[str, int], Meta(description="Components by state.")]
    eta: Annotated[float | None, Meta(description="Seconds until the expected end.")]
    overdue: Annotated[float | None, Meta(description="Seconds by which an attempt is late.")]
    components: list[Document]
    next: Annotated[int | None, Meta(description="Where the next page starts: its `from`.")]
    trace: Annotated[Document, Meta(description="Ids of its trace.")] | UnsetType = UNSET
    owner: Owner | UnsetType = UNSET
    epoch: Epoch | UnsetType = UNSET


class ReportPart(Answer, frozen=True, kw_only=True, omit_defaults=True):
    """Page of the report of a run, or one component of it, or one value."""

    id: str
    run: int
    status: Annotated[str, Meta(description="How the run ended: done, errored or cancelled.")]
    identity: Annotated[str, Meta(description="Id of this report, for the requests of further pages.")]
    masked: Annotated[bool, Meta(description="Whether secrets are masked in this answer.")] = False
    build: (
        Annotated[Document, Meta(description="Fields of the build itself; on the first page.")] | UnsetType
    ) = UNSET
    components: list[Document] | UnsetType = UNSET
    changes: list[Document] | UnsetType = UNSET
    edges: list[Document] | UnsetType = UNSET
    next: Annotated[int | None, Meta(description="Where the next page starts: its `from`.")] | UnsetType = (
        UNSET
    )
    component: Annotated[Document, Meta(description="Component that was asked for.")] | UnsetType = UNSET
    value: Annotated[Any, Meta(description="Value of the field that was asked for.")] = UNSET


class Reasons(Answer, frozen=True, kw_only=True):
    """Reasons why a build or a component is waiting."""

    id: str
    status: str
    reasons: list[Document]
    more: Annotated[int, Meta(description="Reasons that are not listed.")]
    owner: Owner | UnsetType = UNSET
    epoch: Epoch | UnsetType = UNSET


class OrderPage(Answer, frozen=True, kw_only=True):
    """Page of the orders that operators gave about a build, in the order in which they were carried out."""

    id: str
    status: str
    orders: list[Document]
    dropped: Annotated[int, Meta(description="Earlier orders that are not kept in memory.")]
    next: Annotated[int | None, Meta(description="Where the next page starts: its `from`.")]


class InstanceList(Answer, frozen=True, kw_only=True):
    """Instances that share the builds of a store, by name; or the one that works and those that stand by."""

    fleet: Annotated[bool, Meta(description="Whether the store is one that several instances can share.")]
    store: Annotated[str, Meta(description="Name of the store.")]
    answered: Annotated[str, Meta(description="Name of the instance that answers.")]
    instances: list[Document]


class Prediction(Answer, frozen=True, kw_only=True):
    """Prediction of what a build will do, and of how long it will take."""

    id: str
    seconds: Annotated[float, Meta(description="Predicted duration.")]


# Requests.


class BuildRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Request for a verb."""

    answer: ClassVar[type[Answer]]
    """Structure of the answer."""

    @classmethod
    def verb(cls) -> str:
        """Return the verb, the last word of its subject."""
        return cls.__name__.lower()


class Query(BuildRequest, frozen=True, kw_only=True):
    """Request that changes nothing."""

    @classmethod
    def is_quick(cls, document: Document, *, runs: bool) -> bool:  # noqa: ARG003 - `List` looks at it
        """Return whether memory alone answers it.

        Args:
            document: the request, not yet checked; empty where it is large.
            runs: whether it names a build that runs here.
        """
        return runs


class List(Query, frozen=True, kw_only=True):
    """List the builds of the scheduler."""

    answer = Builds
    all: Annotated[bool, Meta(description="List finished builds too, as long as their logs are kept.")] = (
        False
    )
    after: Annotated[Text | None, Meta(description="Id that the page starts after.")] = None
    limit: PageSize = PAGE

    @classmethod
    def is_quick(cls, document: Document, *, runs: bool) -> bool:  # noqa: ARG003 - it names no build
        """Return whether finished builds are left out: those are read from their reports."""
        return document.get("all") is not True


class Get(Query, frozen=True, kw_only=True):
    """Show the current state of a build."""

    answer = BuildState
    id: BuildId
    components: Annotated[bool, Meta(description="List the components.")] = True
    graph: Annotated[bool, Meta(description="Add what each component needs, pauses and outages.")] = False
    start: Annotated[int, Meta(ge=0, description="Number of the first component.")] = field(
        default=0, name="from"
    )
    limit: PageSize = PAGE


class Report(Query, frozen=True, kw_only=True):
    """Show the report of a build that has ended, with its secrets masked."""

    answer = ReportPart
    id: BuildId
    run: Annotated[int, Meta(ge=1, description="Number of the run [default: the last one].")] | None = None
    start: Annotated[
        int, Meta(ge=0, description="Number of the first entry, over components, changes and edges.")
    ] = field(default=0, name="from")
    identity: Annotated[
        Text | None, Meta(description="Id of the report, from its first page; another one is refused.")
    ] = None
    component: ComponentId | None = None
    field: Annotated[
        Text | None,
        Meta(description="Path of a field: of the component, or without one of the build itself."),
    ] = None
    limit: PageSize = PAGE

    @classmethod
    def is_quick(cls, document: Document, *, runs: bool) -> bool:  # noqa: ARG003 - as the base class
        """Return that it never is: reports are read from the store."""
        return False


class Unmasked(Report, frozen=True, kw_only=True):
    """Show the report of a build that has ended, with its secrets."""


class Why(Query, frozen=True, kw_only=True):
    """Explain what a build or component is waiting for."""

    answer = Reasons
    id: BuildId
    component: ComponentId | None = None


class History(Query, frozen=True, kw_only=True):
    """List what operators had done to a build, by whom and why."""

    answer = OrderPage
    id: BuildId
    start: Annotated[int, Meta(ge=0, description="Number of the first order.")] = field(
        default=0, name="from"
    )
    limit: PageSize = PAGE


class Plan(Query, frozen=True, kw_only=True):
    """Predict what a build will do: one that is here, by its id, or one that is given."""

    answer = Prediction
    id: BuildId | None = None
    build: Annotated[
        Document | None,
        Meta(
            description="A build as it would be submitted.",
            extra={"cure": "the build itself, an object; or id: that of one that is here"},
        ),
    ] = None


class Instances(Query, frozen=True, kw_only=True):
    """List the instances of the scheduler that share its builds."""

    answer = InstanceList

    @classmethod
    def is_quick(cls, document: Document, *, runs: bool) -> bool:  # noqa: ARG003 - as the base class
        """Return that it always is: each instance knows the leases of all."""
        return True


class Command(BuildRequest, frozen=True, kw_only=True):
    """Request that changes a build."""

    answer = Done
    id: BuildId
    reason: Annotated[
        Text | None,
        Meta(description="Reason, for the history and the logs; of a cancel for the report, too."),
    ] = None
    by: Annotated[
        Text | None, Meta(description="Name of the one who wants it; a claim, which nothing proves.")
    ] = None
    order: Annotated[
        OrderId | None,
        Meta(
            description="Id of this order, drawn by its sender: copies of it are carried out once.",
            extra={"cure": "a text of 1 to 64 letters, digits, - or _"},
        ),
    ] = None
    expires: Annotated[
        float | None,
        Meta(description="Time from which it is not carried out any more, in seconds since 1970."),
    ] = None


class Cancel(Command, frozen=True, kw_only=True):
    """Stop a build: start nothing new, await what is in flight."""

    now: Annotated[
        bool, Meta(description="Do not wait for requests in flight; their outcome stays unknown.")
    ] = False


class Pause(Command, frozen=True, kw_only=True):
    """Start nothing new in a build until it is resumed."""


class Resume(Command, frozen=True, kw_only=True):
    """Resume a paused build."""


class Retry(Command, frozen=True, kw_only=True):
    """Retry what failed in a build, or one of its components."""

    component: ComponentId | None = None
    start: Annotated[
        ComponentId | None,
        Meta(description="Retry only what failed of this component and all that depends on it."),
    ] = field(default=None, name="from")
    now: Annotated[
        bool,
        Meta(description="Give up on the component's attempt in flight, or on its pause, and send it again."),
    ] = False


class Skip(Command, frozen=True, kw_only=True):
    """Mark a component as done and continue without it."""

    component: ComponentId
    output: Annotated[
        Document | None,
        Meta(
            description="What its connector would have returned.",
            examples=[{"vpc_aws_id": "vpc-1"}],
            extra={"cure": "an object, which is merged into the component"},
        ),
    ] = None


class Approve(Command, frozen=True, kw_only=True):
    """Approve a component that waits for a person."""

    component: ComponentId


class Reject(Command, frozen=True, kw_only=True):
    """Reject a component that waits for a person."""

    component: ComponentId


class Extend(Command, frozen=True, kw_only=True):
    """Give a running component, or a gate, more time."""

    component: ComponentId
    seconds: Annotated[float, Meta(description="Time to add, in seconds.")]


class Limit(Command, frozen=True, kw_only=True):
    """Limit the requests of a build, at a time or in a period."""

    limits: Annotated[
        Document,
        Meta(
            description="Limits by subject; they replace those that the build has.",
            examples=[{"vpc.create.*": 5, "*.create.aws": "20/s"}],
            extra={"cure": "an object such as {'vpc.create.*': 5} is required"},
            extra_json_schema={"additionalProperties": {"type": ["integer", "string"]}},
        ),
    ]


def description_of(request: type[BuildRequest], name: str) -> str:
    """Return the description of a member, which is also the help of its flag."""
    [member] = (one for one in msgspec.structs.fields(request) if one.encode_name == name)
    info = msgspec.inspect.type_info(member.type)
    assert isinstance(info, msgspec.inspect.Metadata), "the member has a description"
    return cast("str", (info.extra_json_schema or {})["description"])
