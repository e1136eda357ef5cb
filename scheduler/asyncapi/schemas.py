"""JSON Schemas as AsyncAPI has them: draft 7, and definitions of all messages in one place."""

from typing import Any, Final

import msgspec

from scheduler.definition.schema import Schema

_DEFINITIONS: Final = "#/$defs/"
_HOME: Final = "#/components/schemas/"
_LEFT_OUT: Final = frozenset({"$schema", "$defs", "discriminator"})
"""Keywords that draft 7 does not have, or AsyncAPI has another meaning for."""


def schema_of(type_: Any) -> Schema:
    """Return the JSON Schema of a structure, or of any other type that msgspec knows."""
    schema: Schema = msgspec.json.schema(type_)
    return schema


class Definitions(dict[str, Schema]):
    """Schemas by name, as ``components/schemas`` has them."""

    def take(self, schema: Schema) -> Schema:
        """Move the definitions of a schema here; return the schema that refers to them.

        Raises:
            ValueError: a definition of that name is here, and another one.
        """
        for name, definition in schema.get("$defs", {}).items():
            shown = name.lstrip("_")
            moved = _as_draft_7(definition)
            if "title" in moved:
                moved["title"] = moved["title"].lstrip("_")
            if self.setdefault(shown, moved) != moved:
                raise ValueError(f"two definitions have the name {shown}")
        moved = _as_draft_7(schema)
        assert isinstance(moved, dict)
        return moved


def _as_draft_7(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_draft_7(one) for one in value]
    if not isinstance(value, dict):
        return value
    found = {key: _as_draft_7(one) for key, one in value.items() if not _is_left_out(key, one)}
    reference = found.pop("$ref", None)
    if isinstance(reference, str):
        link = {"$ref": _HOME + reference.removeprefix(_DEFINITIONS).lstrip("_")}
        # In draft 7 nothing counts beside a reference.
        found = {**found, "allOf": [link, *found.get("allOf", ())]} if found else link
    elif reference is not None:
        # It is the schema of a property of that name.
        found["$ref"] = reference
    if isinstance(items := found.pop("prefixItems", None), list):
        rest = found.pop("items", None)
        found |= {"items": items} | ({} if rest is None else {"additionalItems": rest})
    return found


def _is_left_out(key: str, value: Any) -> bool:
    # A property may have such a name, too; then its value is a schema.
    return key in _LEFT_OUT and (key != "$schema" or isinstance(value, str))
