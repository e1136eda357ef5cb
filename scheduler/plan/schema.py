"""The JSON Schema of a reply, for programs that are connectors.

A reply that fits is understood in full, whatever way it comes; `outcome` takes more than that.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from scheduler.definition.model import Action
from scheduler.definition.schema import DIALECT, ComponentId, Schema
from scheduler.plan.outcome import LONGEST_PAUSE


class FoundDocument(Struct):
    """A component that was found."""

    id: ComponentId = msgspec.field(name="_component_id")


class ReplyDocument(Struct):
    """The component as it is now: every field that is added can be referred to by others."""

    state: Annotated[Literal["completed", "errored"], Meta(description="How the attempt ended.")] = (
        msgspec.field(name="_state")
    )
    id: Annotated[str | UnsetType, Meta(description="Id of the component, as in the request.")] = (
        msgspec.field(name="_component_id", default=UNSET)
    )
    service: Annotated[str | UnsetType, Meta(description="Id of the build, as in the request.")] = UNSET
    error: Annotated[
        str | UnsetType | None, Meta(description="Why the attempt failed; a warning where it did not.")
    ] = UNSET
    retryable: Annotated[bool | UnsetType, Meta(description="false: another attempt is of no use.")] = UNSET
    retry_after: Annotated[
        Annotated[float, Meta(ge=0, le=LONGEST_PAUSE)] | UnsetType,
        Meta(description="Seconds before which another attempt is of no use."),
    ] = UNSET


_FOUND: Final = {
    "if": {"properties": {"_action": {"enum": [Action.FIND]}}, "required": ["_action"]},
    "then": {
        "properties": {
            "components": {
                "description": "What was found.",
                "anyOf": [
                    {"type": "array", "items": {"$ref": f"#/$defs/{FoundDocument.__name__}"}},
                    {"type": "null"},
                ],
            }
        }
    },
}
"""Components that a ``find`` returns; ``components`` of any other reply are its own."""


def reply_schema() -> Schema:
    """The JSON Schema of a reply."""
    (reply, _), definitions = msgspec.json.schema_components(
        (ReplyDocument, FoundDocument), ref_template="#/$defs/{name}"
    )
    return {"$schema": DIALECT, "title": "Reply", **reply, **_FOUND, "$defs": definitions}
