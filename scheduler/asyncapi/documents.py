"""Structures of messages that the code composes piece by piece, or passes on as they are.

All others are described by the structures that they are read or written by.
"""

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from scheduler.definition.model import BUILD_ACTIONS
from scheduler.definition.subjects import TOKEN

Document: TypeAlias = dict[str, Any]
_BuildId: TypeAlias = Annotated[str, Meta(description="Id of the build.")]
_ComponentId: TypeAlias = Annotated[str, Meta(description="Id of the component.")]
_Token: TypeAlias = Annotated[str, Meta(pattern=f"^{TOKEN.pattern}$")]
_Action: TypeAlias = Annotated[str, Meta(extra_json_schema={"enum": [*BUILD_ACTIONS]})]
_Lists: TypeAlias = Annotated[
    list[Literal["components", "changes", "edges"]], Meta(description="Lists of the build that are left out.")
]


class UploadedBuild(Struct):
    """A build that is too large for a message: its id, and the object that has it."""

    id: _BuildId
    object: Annotated[str, Meta(description="Name of the object in the object store.", pattern="^upload/")]


class BuildAccepted(Struct):
    """Answer to the sender of a build: it is persisted."""

    id: _BuildId
    status: Literal["accepted"]
    finished: Annotated[bool, Meta(description="Whether it had come before, and has ended.")] | UnsetType = (
        UNSET
    )


class Rejection(Struct):
    """Reason why a build is rejected."""

    code: Annotated[str, Meta(description="Kind of the reason.", examples=["invalid", "running", "busy"])]
    message: str
    details: Annotated[list[str], Meta(description="Every problem, with its place.")] | UnsetType = UNSET


class BuildRejected(Struct):
    """Answer to the sender of a build: it is not taken."""

    id: Annotated[str | None, Meta(description="Id of the build, where it could be read.")]
    status: Literal["rejected"]
    error: Rejection


class ReportDocument(Struct):
    """The whole build as it stands at the end of a run; further fields are those that were submitted."""

    id: _BuildId
    action: _Action
    components: Annotated[list[Document], Meta(description="What exists now.")] | UnsetType = UNSET
    changes: Annotated[list[Document], Meta(description="Changes, each with its _state.")] | UnsetType = UNSET
    edges: list[Document] | UnsetType = UNSET
    name: Any | UnsetType = UNSET
    error: Annotated[str, Meta(description="First cause; absent where every change is completed.")] | (
        UnsetType
    ) = UNSET


class ReducedReport(Struct):
    """Report that is too large for a message: without its lists."""

    id: _BuildId
    omitted: _Lists
    object: Annotated[str, Meta(description="Name of the object that has the whole report.")] | UnsetType = (
        UNSET
    )
    action: _Action | UnsetType = UNSET
    states: Annotated[dict[str, int], Meta(description="Changes by state.")] | UnsetType = UNSET
    error: str | UnsetType = UNSET


class RefusedBuild(Struct):
    """Build that was rejected and had no reply subject: as it came, with the reason."""

    id: Any
    error: Annotated[str, Meta(description="Why it is rejected.")]
    omitted: _Lists | UnsetType = UNSET


class RequestDocument(Struct):
    """Component as it is to become, with its references filled in; further fields are those of its type."""

    component_id: _ComponentId = msgspec.field(name="_component_id")
    component: Annotated[_Token, Meta(description="Its type, as in the subject.")] = msgspec.field(
        name="_component"
    )
    provider: Annotated[_Token, Meta(description="Its provider, as in the subject.")] = msgspec.field(
        name="_provider"
    )
    action: Annotated[str, Meta(description="What is to be done, as in the subject.")] = msgspec.field(
        name="_action"
    )
    state: Literal["running"] = msgspec.field(name="_state")
    service: _BuildId


class SharedReplyDocument(Struct):
    """The component as it is now, on the subject of its request: its ids tell which attempt is answered."""

    component_id: _ComponentId = msgspec.field(name="_component_id")
    service: _BuildId
    error: Annotated[str | None, Meta(description="Why the attempt failed.")] | UnsetType = UNSET


class ProgressDocument(Struct):
    """Events of a build within a tenth of a second, and how it stands after that."""

    v: Literal[2]
    build: _BuildId
    source: Annotated[str, Meta(description="Process and run that numbers these events.")]
    seq: Annotated[int, Meta(description="Number of the last event.")]
    time: Annotated[float, Meta(description="Seconds since 1970.")]
    total: Annotated[int, Meta(description="Changes of the build.")]
    done: Annotated[int, Meta(description="Completed ones.")]
    counts: Annotated[dict[str, int], Meta(description="Changes by state.")]
    events: Annotated[list[Document], Meta(description="Events, in order.")]
    beats: Annotated[list[Document], Meta(description="Last words of connectors.")] | UnsetType = UNSET


class VerbRefusal(Struct):
    """Reason why a question or a command is refused."""

    code: Literal["invalid", "unknown", "conflict", "expired", "internal", "unavailable"]
    message: str


class VerbRefused(Struct):
    """Answer that refuses a question or a command."""

    id: Annotated[str | None, Meta(description="Id of the build, where the request names one.")]
    error: VerbRefusal


class PresenceDocument(Struct):
    """Answer of an instance that is there."""

    instance: Annotated[str, Meta(description="Name of the process.")]


class DiscoveryDocument(Struct):
    """Answer to service discovery (ADR-32): of PING; those of INFO and STATS have more."""

    type: Annotated[str, Meta(pattern=r"^io\.nats\.micro\.v1\.(ping|info|stats)_response$")]
    name: str
    id: str
    version: str
    metadata: dict[str, str]
    endpoints: list[Document] | UnsetType = UNSET


class ObjectDocument(Struct):
    """Description of an object in the object store."""

    name: str
    bucket: str
    nuid: Annotated[str, Meta(description="Last token of the subject of its chunks.")]
    size: Annotated[int, Meta(description="Size in bytes.")]
    chunks: int
    digest: str
    options: Document | UnsetType = UNSET


class ErnestMapping(Struct):
    """A build, to be stored whole."""

    id: _BuildId
    mapping: Document


class ErnestQuestion(Struct):
    """Question for one build."""

    id: _BuildId


class ErnestStatus(Struct):
    """Question for the builds of a status."""

    status: str


class ErnestRefusal(Struct):
    """Answer of a store that refuses."""

    error: str = msgspec.field(name="_error")
