"""Invented values: what a path into a result leads to. Pure."""

from collections.abc import Container, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple, TypeAlias

from scheduler.definition.template.paths import EACH, PathQuery
from scheduler.definition.template.patterns import Pattern

_MOST_ELEMENTS: Final = 64
"""Elements of an invented list."""
_COMPUTED: Final = 3
"""Elements of a list whose index is computed."""

Path: TypeAlias = tuple[Any, ...]
"""Way into a result: keys, indices, and the parts of `paths.Path`; None is a key that is computed."""


def holds(value: Any, query: PathQuery) -> bool:
    """Whether a query for equality or a pattern holds for a value."""
    for part in query.path:
        value = value.get(part) if isinstance(value, dict) and isinstance(part, str) else None
    if query.pattern is not None:
        return isinstance(value, str) and query.pattern.matches(value)
    return query.operator == "=" and str(value) == query.value


class Exactly(NamedTuple):
    """End of a path whose value is given."""

    value: Any


_TEXT, _NUMBER, _LIST, _OBJECT, _NUMBERS = KINDS = ("text", "number", "list", "object", "numbers")
"""Kinds of invented values, in the order in which they are tried."""


class New(NamedTuple):
    """Value to be invented."""

    seed: str
    """Text that it is made of."""
    kind: str = ""
    """Its kind; if empty, a value that is there stays, and a new one is a text."""
    name: str = "value"
    """Its key."""

    def at(self, index: int, *, wanted: bool) -> "New":
        """Return the value for an element of a list; one that is not wanted is there for its place only."""
        return New(f"{self.seed}\0{index}", self.kind if wanted else "", self.name)


def grown(value: Any, path: Path, new: New) -> Any:
    """Return a value in which a path leads to something.

    Args:
        value: the value so far; None if there is none.
        path: the rest of the path.
        new: the value at its end.
    """
    if not path:
        return _made(new) if new.kind or value is None else value
    part, rest = path[0], path[1:]
    if isinstance(part, Exactly):
        return part.value
    if isinstance(part, PathQuery):
        elements = list(value) if isinstance(value, list) else []
        if not any(holds(one, part) for one in elements):
            elements.append(grown({}, (*part.path, Exactly(fulfilling(part))), new))
        # For some comparisons nothing tells whether they hold: the new element is to be found.
        at = {index for index, one in enumerate(elements) if holds(one, part)} or {len(elements) - 1}
        return _grown_at(elements, at, rest, new) if rest else elements
    if part is EACH or part is None or _is_index(part, value):
        elements = list(value) if isinstance(value, list) else []
        size = _COMPUTED if part is None else 1 if part is EACH else _size(int(part))
        elements += [None] * (size - len(elements))
        every = part is EACH or part is None
        size = len(elements)
        return _grown_at(elements, range(size) if every else (int(part) % size,), rest, new)
    key = part.text.replace("*", "").replace("?", "x") if isinstance(part, Pattern) else str(part)
    fields = value if isinstance(value, dict) else {}
    return fields | {key: grown(fields.get(key), rest, New(new.seed, new.kind, key))}


def _grown_at(elements: Sequence[Any], at: Container[int], path: Path, new: New) -> list[Any]:
    """Return a list in which a path leads to something from the elements ``at`` some indices."""
    return [
        grown(one, path if index in at else (), new.at(index, wanted=index in at))
        for index, one in enumerate(elements)
    ]


def _is_index(part: Any, value: Any) -> bool:
    if isinstance(value, dict):
        return False
    return isinstance(part, int) or (isinstance(part, str) and part.isascii() and part.isdecimal())


def _size(index: int) -> int:
    """Return the length of the shortest list with this index, which may count from the end."""
    return min(_MOST_ELEMENTS, index + 1 if index >= 0 else -index)


def fulfilling(query: PathQuery) -> Any:
    """Return a value for which a query holds."""
    number = query.number
    if query.pattern is not None:
        return query.value.replace("*", "").replace("?", "x")
    if query.operator == "!=":
        return f"{query.value}x"
    if query.operator in {"<", ">"}:
        step = 1 if query.operator == ">" else -1
        return f"{query.value}x" if number is None else number + step
    return query.value if number is None else number


def _made(new: New) -> Any:
    """Invent a value; the same seed makes the same."""
    seed, kind, name = new.seed, new.kind or _TEXT, new.name
    digest = blake2b(seed.encode(errors="surrogatepass"), digest_size=8).hexdigest()
    last = int(digest[-2:], 16)
    if kind == _NUMBER:
        return last
    if kind == _NUMBERS:
        return [last, last + 1]
    word = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name)[:32].lower()
    if "ip" in word.split("-"):
        # An address reserved for documentation (RFC 5737).
        text = f"203.0.113.{last}"
    elif word.endswith(("endpoint", "host", "hostname", "dns-name", "domain")):
        text = f"{digest[:8]}.example.com"
    else:
        text = f"{word}-{digest[:8]}"
    return {_TEXT: text, _LIST: [text], _OBJECT: {"name": text}}[kind]
