"""What each endpoint takes and gives, as JSON Schemas for service discovery (ADR-32)."""

from collections.abc import Mapping
from typing import Any, Final

from scheduler.definition.strictjson import encode

_TEXT = {"type": "string"}
_FLAG = {"type": "boolean"}
_NUMBER = {"type": "number"}
_WHOLE = {"type": "integer"}
_OBJECT = {"type": "object"}
_LIST = {"type": "array"}
_ID = {"id": _TEXT}
_DONE = {"id": _TEXT, "status": _TEXT, "text": _TEXT, "components": _WHOLE}


def _schema(properties: Mapping[str, Any], *required: str) -> str:
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    return encode({**schema, "required": required} if required else schema).decode()


def _pair(request: str, response: str) -> Mapping[str, str]:
    return {"request_schema": request, "response_schema": response}


_STEERED = _schema(_DONE, "id", "status", "text")

SCHEMAS: Final[Mapping[str, Mapping[str, str]]] = {
    "list": _pair(
        _schema({"all": _FLAG, "after": _TEXT, "limit": _WHOLE}),
        _schema({"builds": _LIST, "next": {"type": ["string", "null"]}}, "builds", "next"),
    ),
    "get": _pair(
        _schema({**_ID, "components": _FLAG, "graph": _FLAG, "from": _WHOLE, "limit": _WHOLE}, "id"),
        _schema(
            {
                **_ID,
                "status": _TEXT,
                "counts": _OBJECT,
                "eta": {"type": ["number", "null"]},
                "overdue": {"type": ["number", "null"]},
                "components": _LIST,
            },
            "id",
            "status",
            "counts",
        ),
    ),
    "why": _pair(
        _schema({**_ID, "component": _TEXT}, "id"),
        _schema({**_ID, "status": _TEXT, "reasons": _LIST, "more": _WHOLE}, "id", "status", "reasons"),
    ),
    "plan": _pair(_schema({**_ID, "build": _OBJECT}), _schema({**_ID, "seconds": _NUMBER}, "id")),
    "cancel": _pair(_schema({**_ID, "now": _FLAG, "reason": _TEXT}, "id"), _STEERED),
    "pause": _pair(_schema(_ID, "id"), _STEERED),
    "resume": _pair(_schema(_ID, "id"), _STEERED),
    "retry": _pair(_schema({**_ID, "component": _TEXT}, "id"), _STEERED),
    "skip": _pair(_schema({**_ID, "component": _TEXT, "output": _OBJECT}, "id", "component"), _STEERED),
    "extend": _pair(
        _schema({**_ID, "component": _TEXT, "seconds": _NUMBER}, "id", "component", "seconds"), _STEERED
    ),
    "limit": _pair(_schema({**_ID, "limits": _OBJECT}, "id", "limits"), _STEERED),
}
"""By verb, what its endpoint has in its metadata."""
