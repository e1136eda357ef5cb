"""The report of a build: the whole build, once, on ``<action>.done`` or ``<action>.error``."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import field, frozen

from scheduler.definition.codec import to_document
from scheduler.definition.model import Edge, written
from scheduler.definition.strictjson import Raw, encode, list_chunks

_LISTS = ("components", "changes", "edges")
_HEAD = ("id", "name", "action")
_LONGEST_NAME = 40
_STATES = ("waiting", "running", "retrying", "completed", "errored", "skipped")
_SHORT = 1_000
"""Characters of a field that a reduced report keeps: it has to be small, whatever the build says."""


@frozen
class Report:
    """The whole build as it stands at its end (WIRE: "The report")."""

    action: str
    error: str | None
    """The first cause; None where every change is completed."""
    fields: Mapping[str, Any] = field(repr=False)
    """The build's own fields."""
    components: Sequence[Mapping[str, Any]] = field(repr=False)
    changes: Sequence[Mapping[str, Any] | Raw] = field(repr=False)
    edges: Sequence[Edge] = field(repr=False)
    states: Mapping[str, int]
    """How many changes are in which state."""
    run: int = 1
    """Which run of the build it is of."""
    mark: str = ""
    """Of the build's acceptance: tells it from the report of another build that had the same id."""
    absent: frozenset[str] = frozenset()
    """The lists that the build did not have: they are left out while they are empty."""
    cancelled: bool = False
    """Whether an operator ended it."""
    accepted: float | None = None
    """When the build was accepted, or this run of it began; seconds since 1970."""

    @property
    def subject(self) -> str:
        """Where it is published."""
        return f"{self.action}.{'done' if self.error is None else 'error'}"

    def lists(self) -> dict[str, Sequence[Any]]:
        """The lists as they are written; changes that nothing was done with are JSON text in them."""
        edges = [to_document(edge) for edge in self.edges]
        lists: dict[str, Sequence[Any]] = {
            "components": list(self.components),
            "changes": list(self.changes),
            "edges": edges,
        }
        return written(lists, self.fields, self.absent)

    def chunks(self) -> Iterator[bytes]:
        """The report as JSON text in pieces, each made quickly: together they may be tens of megabytes."""
        given = {"components": self.components, "changes": self.changes, "edges": self.edges}
        lists = written(given, self.fields, self.absent)
        yield encode({key: value for key, value in self._head().items() if key not in lists})[:-1]
        for name, items in lists.items():
            yield b',"%b":[' % name.encode()
            yield from list_chunks(items, to_document if name == "edges" else None)
            yield b"]"
        yield b"}"

    def reduced(self, size: int, limit: int, name: str = "") -> bytes:
        """What is reported instead when the report cannot be published: the lists are left out.

        Args:
            size: bytes of the whole report.
            limit: the server's ``max_payload``, in bytes.
            name: of the object that holds the whole report; empty where it is lost.
        """
        if name:
            return encode(
                {**self._short(), "object": name, "omitted": _LISTS, "states": dict(self.states)}
                | ({} if self.error is None else {"error": self.error[:4_000]})
            )
        text = f"the report takes {size} bytes, over the server's max_payload of {limit} bytes"
        error = text if self.error is None else f"{self.error[:4_000]}; {text}"
        return encode({**self._short(), "error": error, "omitted": _LISTS, "states": dict(self.states)})

    def summary(self) -> str:
        """What a list of builds says of it, as JSON that fits into a header: ASCII, and short."""
        name = self.fields.get("name")
        name = name[:_LONGEST_NAME] if isinstance(name, str) else ""
        status = "done" if self.error is None else "cancelled" if self.cancelled else "errored"
        summary = {
            "name": name,
            "status": status,
            "total": len(self.changes),
            "counts": dict.fromkeys(_STATES, 0) | dict(self.states),
        }
        if self.accepted is not None:
            summary["accepted"] = self.accepted
        return json.dumps(summary, separators=(",", ":"))

    def _short(self) -> dict[str, str]:
        return {key: value[:_SHORT] for key in _HEAD if isinstance(value := self.fields.get(key), str)}

    def _head(self) -> dict[str, Any]:
        head = {key: value for key, value in self.fields.items() if key != "error"}
        return head if self.error is None else {**head, "error": self.error}
