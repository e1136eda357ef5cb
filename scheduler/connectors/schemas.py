"""JSON Schemas of what handlers take and return, as far as their types tell."""

from typing import Any, Final, get_args, get_origin, get_type_hints

import msgspec

from scheduler.connectors.conversion import is_typed, is_untyped, names_of
from scheduler.connectors.handlers import Handler
from scheduler.definition.strictjson import encode

LONGEST: Final = 8 * 1024
"""Bytes of a schema. All of a connector's travel in one message."""
_UNKNOWN: Final = (TypeError, NameError, ValueError, NotImplementedError, AttributeError)
"""Errors of msgspec about a type that it has no schema for, and of annotations that cannot be resolved."""


def schemas_of(handler: Handler) -> dict[str, str]:
    """Return the schemas of a handler's request and of its success, as JSON, for service discovery."""
    request = schema_of(handler.request)
    returned = _returned(handler)
    if handler.action == "find":
        listed = get_args(returned) if get_origin(returned) is list else ()
        found = {"type": "array", "items": schema_of(listed[0] if listed else Any)}
        response: dict[str, Any] = {"type": "object", "properties": {"components": found}}
    else:
        response = schema_of(returned) if is_typed(returned) else request
    return {"request_schema": _written(request), "response_schema": _written(response)}


def schema_of(type_: Any) -> dict[str, Any]:
    """Return the schema of a type of component; just an object where msgspec has none for it."""
    if is_untyped(type_) or not is_typed(type_):
        return _an_object()
    try:
        if not _is_struct(type_) and any(name != key for name, key in names_of(type_).items()):
            # Its names in JSON are cattrs', which msgspec does not know.
            return _an_object()
        schema: dict[str, Any] = msgspec.json.schema(type_)
    except _UNKNOWN:
        return _an_object()
    return schema


def _an_object() -> dict[str, Any]:
    return {"type": "object"}


def _is_struct(type_: Any) -> bool:
    origin = get_origin(type_) or type_
    return isinstance(origin, type) and issubclass(origin, msgspec.Struct)


def _returned(handler: Handler) -> Any:
    function = handler.function
    while hasattr(function, "func"):
        function = function.func
    try:
        return get_type_hints(function).get("return", Any)
    except _UNKNOWN:
        return Any


def _written(schema: dict[str, Any]) -> str:
    text = encode(schema).decode()
    return text if len(text) <= LONGEST else encode(_an_object()).decode()
