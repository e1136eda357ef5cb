"""Build with all of its components, as it was answered: by number, with their edges. Pure."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

import msgspec
from attrs import field, frozen

from scheduler.client.lenient import number, text, texts
from scheduler.control.verbs import Document
from scheduler.runtime.yielding import yield_now

_AT_ONCE: Final = 50
"""Components between two yield points."""


@frozen(eq=False)
class Structure:
    """Structure of a build; what is drawn of it depends on nothing else."""

    key: str
    """Hash of all of it."""
    ids: tuple[str, ...] = field(repr=False)
    index: dict[str, int] = field(repr=False)
    types: list[str]
    type: list[int] = field(repr=False)
    actions: list[str]
    action: list[int] = field(repr=False)
    providers: list[str]
    provider: list[int] = field(repr=False)
    gates: list[int] = field(repr=False)
    needs: list[list[int]] = field(repr=False)
    """Dependencies of each component."""

    def __len__(self) -> int:
        return len(self.ids)

    def dependents(self, vertex: int) -> list[int]:
        """Return what needs a component; looks at all edges."""
        return [one for one, needs in enumerate(self.needs) if vertex in needs]


@frozen(eq=False)
class Whole:
    """A build with all of its components, and its structure."""

    answer: Document = field(repr=False)
    """Answer to ``get``, without components; of the first page."""
    rows: list[Mapping[str, Any]] = field(repr=False)
    """Components, in the order of the structure."""
    structure: Structure = field(repr=False)
    at: float
    """When it was asked for, Trio clock."""

    @property
    def status(self) -> str:
        """Status of the build."""
        return str(self.answer.get("status", ""))

    @property
    def now(self) -> float:
        """Clock of the owner, seconds since 1970."""
        return number(self.answer.get("now")) or 0.0

    @property
    def accepted(self) -> float:
        """Time at which it was accepted, by the same clock."""
        return number(self.answer.get("accepted")) or 0.0


def structure_of(rows: Sequence[Mapping[str, Any]]) -> Structure:
    """Return the structure of components as ``get`` answers them, with their graph; for a thread."""
    ids = tuple(text(row.get("id")) for row in rows)
    index = {one: vertex for vertex, one in enumerate(ids)}
    names: tuple[dict[str, int], ...] = ({}, {}, {})
    columns: tuple[list[int], ...] = ([], [], [])
    needs, gates = [], []
    for vertex, row in enumerate(rows):
        if not vertex % _AT_ONCE:
            yield_now()
        words = (*text(row.get("subject")).split(".", 2), "", "", "")[:3]
        for known, column, word in zip(names, columns, words, strict=True):
            column.append(known.setdefault(word, len(known)))
        found = (index.get(one) for one in texts(row.get("needs")))
        needs.append([one for one in found if one is not None])
        if row.get("gate") is True:
            gates.append(vertex)
    (types, actions, providers), (type_, action, provider) = (list(map(list, names)), columns)
    hashed = sha256(msgspec.json.encode((ids, types, type_, actions, action, providers, provider, gates)))
    for vertex in range(0, len(needs), _AT_ONCE):
        yield_now()
        hashed.update(msgspec.json.encode(needs[vertex : vertex + _AT_ONCE]))
    return Structure(
        hashed.hexdigest()[:32], ids, index, types, type_, actions, action, providers, provider, gates, needs
    )
