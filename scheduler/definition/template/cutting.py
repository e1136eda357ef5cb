"""Cutting of a change's JSON at its references: constant runs of bytes, with slots between them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from scheduler.definition.places import MAX_PLACE, Raw, join_place, raw_fields
from scheduler.definition.template import references
from scheduler.definition.template.jsonparts import encode
from scheduler.definition.template.references import Syntax, Text
from scheduler.definition.template.work import AbortedError, free
from scheduler.errors import InvalidTemplate, Problem, TemplateError

# A slot is encoded as one zero byte, which JSON cannot contain: the constant runs are cut there.
_HOLE = b"\0"
_SLOT = msgspec.Raw(_HOLE)
_CONTAINER = 48
_ITEM = 4
"""Units of work for a list or an object and its place, and for each element of it."""
_PROBLEMS = 100
"""Problems of one component that are reported one by one."""
_SHOWN = 200
"""Characters of a too long place that are shown."""


class Cut(NamedTuple):
    """A change, cut at its references."""

    runs: tuple[bytes, ...]
    """Bytes before, between and after the slots: one more than there are slots."""
    slots: tuple[tuple[str, Text], ...]
    """Texts with references, each with its place, in the order of the JSON."""
    raw: Raw
    """Fields that are never rendered."""


def cut_fields(
    name: str, fields: Mapping[str, Any], syntax: Syntax, spend: Callable[[int], None] = free
) -> Cut:
    """Cut the JSON of ``fields``, those of the component with this id; ``spend`` is called before work.

    Raises:
        InvalidTemplate: with every problem.
    """
    cutter = _Cutter(name, syntax, spend)
    body = encode(fields)
    raw = cutter.raw(fields)
    holed = cutter.cut(fields, "", raw) if b"{{" in body or b'"$(' in body else fields
    if cutter.problems:
        raise InvalidTemplate(cutter.problems)
    runs = tuple(encode(holed).split(_HOLE)) if cutter.slots else (body,)
    return Cut(runs, tuple(cutter.slots), raw)


class _Cutter:
    """Takes the references out of a component's fields."""

    def __init__(self, name: str, syntax: Syntax, spend: Callable[[int], None]) -> None:
        self.id = name
        self.spend = spend
        self.syntax = syntax
        self.slots: list[tuple[str, Text]] = []
        self.problems: list[Problem] = []

    def refuse(self, place: str, message: str) -> None:
        if len(self.problems) == _PROBLEMS:
            self.problems.append(Problem(self.id, f"more than {_PROBLEMS} problems; these are the first"))
        if len(self.problems) < _PROBLEMS:
            self.problems.append(Problem(f"{self.id}.{place}" if place else self.id, message))

    def raw(self, fields: Mapping[str, Any]) -> Raw:
        try:
            return raw_fields(fields)
        except TemplateError as error:
            self.refuse("_raw", str(error))
            return {}

    def cut(self, value: Any, place: str, raw: Raw | None) -> Any:
        """Return ``value`` with a hole for each reference; ``value`` itself if there is none."""
        if isinstance(value, str):
            return self.cut_text(value, place) if references.may_refer(value) else value
        items: Iterable[tuple[Any, Any]]
        if isinstance(value, dict):
            items = value.items()
        elif isinstance(value, list):
            items = enumerate(value)
        else:
            return value
        self.spend(_CONTAINER + _ITEM * len(value))
        copy: Any = None
        for key, item in items:
            if isinstance(item, str):
                if not references.may_refer(item):
                    continue
            elif not isinstance(item, dict | list):
                continue
            below = None if raw is None else raw.get(str(key))
            if below is not None and not below:
                continue
            changed = self.cut(item, self.place_of(place, key), below)
            if changed is not item:
                if copy is None:
                    copy = value.copy()
                copy[key] = changed
        return value if copy is None else copy

    def place_of(self, place: str, key: str | int) -> str:
        """Return the place of ``key`` in ``place``; cut where a reference there is sure to be refused."""
        if len(place) > MAX_PLACE:
            return place
        return join_place(place, key[: MAX_PLACE + 1] if isinstance(key, str) else key)

    def cut_text(self, value: str, place: str) -> Any:
        if len(place) > MAX_PLACE:
            self.refuse(
                f"{place[:_SHOWN]}...", f"a reference under keys of more than {MAX_PLACE} characters together"
            )
            return value
        try:
            text = references.read(value, self.syntax, self.spend)
        except AbortedError:
            raise
        except TemplateError as error:
            self.refuse(place, str(error))
            return value
        if text is None:
            return value
        self.slots.append((place, text))
        return _SLOT
