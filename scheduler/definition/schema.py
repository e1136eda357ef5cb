"""The JSON Schema of a build, for editors and for programs that make builds.

What a field may be is declared here as types, of the same bounds and words that `converter`, `rules` and
`subjects` check by; msgspec makes the schema of them. It is laxer than the checks and never stricter: it
knows neither which ids there are nor what references lead to.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from scheduler.definition.converter import BUILD_ID, MAX_HEARTBEAT, MAX_TIMEOUT
from scheduler.definition.model import BUILD_ACTIONS, PSEUDO_IDS, UNSENT, Action, State
from scheduler.definition.patterns import WORD
from scheduler.definition.places import MAX_NAME, MAX_NAMES
from scheduler.definition.rules import LONGEST, MOST, MOST_ATTEMPTS, MOST_RULES, ONCE, OnError
from scheduler.definition.subjects import RESERVED_PROVIDERS, RESERVED_TYPES, TOKEN

Schema: TypeAlias = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_SUBJECTS: Final = rf"(?:\*|(?:{WORD.pattern})(?:\.(?:{WORD.pattern})){{2}})"
_COUNT: Final = r"[0-9]{1,7}(?:\s*/\s*[smh])?"
_RULE: Final = rf"(?:{_SUBJECTS}\s*=\s*{_COUNT}\s*)?"
_SHARE: Final = r"^\s*(?=\.?[0-9])[0-9]*\.?[0-9]*\s*%$"


def _token(reserved: Iterable[str], more: str = "") -> str:
    """The pattern of a token of a subject; one with a reference in it is known only when it is due."""
    return rf"^(?:(?!(?:{'|'.join(sorted(reserved))})$){more}{TOKEN.pattern}$|\$\(|[\s\S]*\{{\{{)"


def _other_than(*words: str) -> Schema:
    return {"not": {"enum": sorted(words)}}


def _schema_of(type_: Any) -> Schema:
    schema: Schema = msgspec.json.schema(type_)
    return schema


ComponentId: TypeAlias = Annotated[
    str,
    Meta(
        min_length=1,
        description="Names the component; unique within its list.",
        extra_json_schema=_other_than(*PSEUDO_IDS),
    ),
]
_Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
_Names: TypeAlias = Annotated[list[_Name], Meta(max_length=MAX_NAMES)] | None
_Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=LONGEST)]
_NotCompleted: Final = {"_state": _other_than(State.COMPLETED)}
_SENT: Final = {
    "if": {"properties": {**_NotCompleted, "_action": _other_than(*UNSENT)}},
    "then": {
        "properties": {
            "_component": {"pattern": _token(RESERVED_TYPES, "(?!_)")},
            "_provider": {"pattern": _token(RESERVED_PROVIDERS)},
        }
    },
}
"""Type and provider of a component that is sent: each can be part of a subject."""
_RENDERED: Final = {
    "if": {"properties": _NotCompleted},
    "then": {"properties": {"_raw": _schema_of(_Names)}},
}
"""References of a component that is rendered; what a connector has returned is data, and left alone."""
_GATE: Final = {
    "if": {"properties": {"_action": {"enum": [Action.APPROVE]}}, "required": ["_action"]},
    "then": {"properties": {"_retry": {"type": "null"}}},
}
"""A component that waits for a person: it is not tried again."""


class RetryDocument(Struct, forbid_unknown_fields=True):
    """Retries of a failed component: the attempts, and the pauses between them."""

    attempts: Annotated[int, Meta(ge=1, le=MOST_ATTEMPTS, description="Attempts in all.")] = ONCE.attempts
    backoff: Annotated[_Seconds, Meta(description="Longest pause before the second attempt, in seconds.")] = (
        ONCE.backoff
    )
    max_backoff: Annotated[_Seconds, Meta(description="Longest pause of all, in seconds.")] = ONCE.max_backoff
    total_timeout: (
        Annotated[_Seconds, Meta(description="Bound on all attempts together, in seconds.")] | UnsetType
    ) = UNSET


_Retry: TypeAlias = RetryDocument | UnsetType | None


class ComponentDocument(Struct, rename=lambda name: f"_{name}"):
    """A component that exists."""

    component_id: ComponentId
    component: Annotated[Any | UnsetType, Meta(description="Its type.", examples=["vpc"])] = UNSET
    provider: Annotated[Any | UnsetType, Meta(description="Its provider.", examples=["aws"])] = UNSET
    secret: Annotated[_Names | UnsetType, Meta(description="Fields that are never shown.")] = UNSET


class ChangeDocument(Struct, rename=lambda name: f"_{name}"):
    """A component as it is to become, and what is to be done with it."""

    component_id: ComponentId
    component: Annotated[str, Meta(min_length=1, description="Its type.", examples=["vpc"])]
    provider: Annotated[str, Meta(min_length=1, description="Its provider.", examples=["aws"])]
    action: Annotated[
        Action,
        Meta(description="What the connector is asked to do; none: nothing; approve: a person is asked."),
    ]
    state: Annotated[
        Any | UnsetType,
        Meta(
            description="completed: done, is not sent. Anything else, or nothing: to be done.",
            extra_json_schema={"enum": [*State, "", None]},
        ),
    ] = UNSET
    timeout: Annotated[
        Annotated[float, Meta(gt=0, le=MAX_TIMEOUT)] | UnsetType | None,
        Meta(description="How long one attempt may take, or an approval, in seconds."),
    ] = UNSET
    heartbeat: Annotated[
        Annotated[float, Meta(gt=0, le=MAX_HEARTBEAT)] | UnsetType | None,
        Meta(description="Fail the attempt without a heartbeat for so many seconds."),
    ] = UNSET
    retry: Annotated[_Retry, Meta(description="How often it is tried.")] = UNSET
    raw: Annotated[
        Any | UnsetType,
        Meta(description="Fields that are never rendered.", examples=[["user_data", "tags.x"]]),
    ] = UNSET
    secret: Annotated[_Names | UnsetType, Meta(description="Fields that are never shown.")] = UNSET


class EdgeDocument(Struct):
    """An edge: its source completes before its destination starts."""

    source: Annotated[str, Meta(min_length=1, description="Id of the dependency.")]
    destination: Annotated[str, Meta(min_length=1, description="Id of the component that waits for it.")]
    length: Annotated[int | UnsetType | None, Meta(description="Kept and passed on.")] = UNSET


_Limit: TypeAlias = (
    Annotated[int, Meta(ge=1, le=MOST)]
    | Annotated[str, Meta(pattern=rf"^\s*{_COUNT}\s*$", examples=["20/s"])]
)
_Limits: TypeAlias = Annotated[
    dict[Annotated[str, Meta(pattern=f"^{_SUBJECTS}$")], _Limit],
    Meta(max_length=MOST_RULES, examples=[{"vpc.create.*": 5, "*.create.aws": "20/s"}]),
]


_LimitsText: TypeAlias = Annotated[
    str, Meta(pattern=rf"^\s*{_RULE}(?:,\s*{_RULE})*$", examples=["vpc.create.*=5, *.create.aws=20/s"])
]
_Failures: TypeAlias = (
    Annotated[int, Meta(ge=0, le=MOST)] | Annotated[str, Meta(pattern=_SHARE, examples=["5%"])]
)


class OptionsDocument(Struct):
    """Options for running the build; any other key is your own."""

    retry: Annotated[_Retry, Meta(description="Like _retry, for every component without one.")] = UNSET
    limits: Annotated[
        _Limits | _LimitsText | UnsetType | None,
        Meta(description="Requests in flight, or started in a period, by subject."),
    ] = UNSET
    on_error: Annotated[
        OnError | UnsetType | None,
        Meta(
            description="After an error: drain starts nothing new, continue does what does not depend on it."
        ),
    ] = UNSET
    max_failures: Annotated[
        _Failures | UnsetType | None,
        Meta(description="Components that may fail before the build stops: a number or a share."),
    ] = UNSET


_Change: TypeAlias = Annotated[ChangeDocument, Meta(extra_json_schema={"allOf": [_SENT, _RENDERED, _GATE]})]


class BuildDocument(Struct):
    """A build: components, what is to be done with each, and their order."""

    id: Annotated[str, Meta(pattern=f"^{BUILD_ID.pattern}$", description="Names the build.")]
    schema: Annotated[Any | UnsetType, Meta(description="Where editors find this schema; has no effect.")] = (
        msgspec.field(name="$schema", default=UNSET)
    )
    name: Annotated[Any | UnsetType, Meta(description="Name for people.")] = UNSET
    action: Annotated[
        Any | UnsetType,
        Meta(description="What the build is, where no subject says it.", examples=[*BUILD_ACTIONS]),
    ] = UNSET
    components: Annotated[
        list[ComponentDocument] | UnsetType | None, Meta(description="What exists now.")
    ] = UNSET
    changes: Annotated[
        list[_Change] | UnsetType | None,
        Meta(description="What this build does; each is sent once."),
    ] = UNSET
    edges: Annotated[list[EdgeDocument] | UnsetType | None, Meta(description="What waits for what.")] = UNSET
    options: Annotated[OptionsDocument | UnsetType, Meta(description="How the build runs.")] = UNSET
    notify: Annotated[
        Any | UnsetType,
        Meta(description="URLs to notify, where the service allows it: one, or a list of at most 4."),
    ] = UNSET


def build_schema() -> Schema:
    """The JSON Schema of a build as it is submitted."""
    schema = {"$schema": DIALECT, "title": "Build", **_schema_of(BuildDocument)}
    # What is no object holds no options, and is the user's own as well.
    del schema["$defs"][OptionsDocument.__name__]["type"]
    return schema
