"""The report of a build: the whole build, published once on ``<action>.done`` or ``<action>.error``."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import field, frozen

from scheduler.definition.converter import written_edges
from scheduler.definition.model import Edge, written
from scheduler.definition.secrets.masking import Secrets
from scheduler.definition.strictjson import Raw, encode, list_chunks
from scheduler.journal.orders import Orders

_LISTS = ("components", "changes", "edges")
_HEAD = ("id", "name", "action")
_LONGEST_NAME = 40
_STATES = ("waiting", "running", "retrying", "completed", "errored", "skipped")
_SHORT = 1_000
"""Characters of a field in a reduced report, which must be small whatever the build says."""


@frozen
class Report:
    """The whole build as it stands at its end (WIRE: "The report")."""

    action: str
    error: str | None
    """First cause; None where every change is completed."""
    fields: Mapping[str, Any] = field(repr=False)
    """Fields of the build itself."""
    components: Sequence[Mapping[str, Any]] = field(repr=False)
    changes: Sequence[Mapping[str, Any] | Raw] = field(repr=False)
    edges: Sequence[Edge] = field(repr=False)
    states: Mapping[str, int]
    """Number of changes in each state."""
    run: int = 1
    """Number of the run."""
    mark: str = ""
    """Mark of the build's acceptance: tells the report from that of another build with the same id."""
    absent: frozenset[str] = frozenset()
    """Names of lists that the submitted build left out: they are left out while they are empty."""
    cancelled: bool = False
    """Whether an operator cancelled the build."""
    accepted: float | None = None
    """Time at which the build was accepted, or this run of it began; seconds since 1970."""
    secrets: Secrets | None = field(default=None, repr=False, eq=False)
    """Secrets of the build, for who shows the report; None if only those in the report are known."""
    orders: Orders = field(factory=Orders, repr=False, eq=False)
    """Orders of operators; they are no part of what is published."""

    @property
    def subject(self) -> str:
        """Subject on which the report is published."""
        return f"{self.action}.{'done' if self.error is None else 'error'}"

    @property
    def status(self) -> str:
        """``done``, ``errored`` or ``cancelled``."""
        return "done" if self.error is None else "cancelled" if self.cancelled else "errored"

    def lists(self) -> dict[str, Sequence[Any]]:
        """Return the lists as they are written; untouched changes are JSON text in them."""
        lists: dict[str, Sequence[Any]] = {
            "components": list(self.components),
            "changes": list(self.changes),
            "edges": written_edges(self.edges),
        }
        return written(lists, self.fields, self.absent)

    def chunks(self) -> Iterator[bytes]:
        """Yield the report as JSON text in pieces, each made quickly: the whole may be tens of megabytes."""
        lists = self.lists()
        yield encode({key: value for key, value in self._head().items() if key not in lists})[:-1]
        for name, items in lists.items():
            yield b',"%b":[' % name.encode()
            yield from list_chunks(items)
            yield b"]"
        yield b"}"

    def reduced(self, size: int, limit: int, name: str = "") -> bytes:
        """Return a report without the lists, for one that is too large to be published.

        Args:
            size: bytes of the whole report.
            limit: the server's ``max_payload``, in bytes.
            name: name of the object that holds the whole report; empty where it is lost.
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
        """Return the summary for lists of builds, as short ASCII JSON that fits into a header."""
        name = self.fields.get("name")
        name = name[:_LONGEST_NAME] if isinstance(name, str) else ""
        summary = {
            "name": name,
            "status": self.status,
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
