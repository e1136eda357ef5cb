"""What one string of a component is: plain text, a path in ``$( )``, or text with expressions in ``{{ }}``.

A string is read once; components that say the same thing share what was read (WIRE: "References").
"""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from scheduler.definition.template import expressions, paths, sandbox
from scheduler.definition.template.expressions import Expression
from scheduler.definition.template.grammar import Lookup
from scheduler.definition.template.jsonparts import MAX_STRING, bounded, gjson_text, text_of
from scheduler.definition.template.work import AbortedError, free
from scheduler.errors import TemplateError, Unresolved
from scheduler.runtime.caches import ByteCache

_SHARED: Final = 1024
"""Characters up to which a string is worth keeping for the next component that says the same."""
_PER_NODE: Final = 600
"""Bytes that are kept for a node of what was read, and as many for the string itself."""
_READING: Final = 160
"""Work for a string that may refer, beside that of parsing; for one of the common forms it is all."""
_SHORT: Final = 256
"""Characters up to which a string may be of a common form."""
_COMMON_PATH: Final = re.compile(
    r"""\$\(components\.\#\[_component_id="([^"\\$]++)"\]\.([A-Za-z_][A-Za-z0-9_]*+(?:\.[A-Za-z_][A-Za-z0-9_]*+)*+)\)"""
)
_PLAIN: Final = "plain"


class Syntax(NamedTuple):
    """Which references there are, and what becomes of those that lead to nothing."""

    expressions: bool = True
    """Whether ``{{ }}`` is special."""
    keep: bool = False
    """Whether a ``$(path)`` that leads to nothing or to empty text, or is no path, stays as it stands."""


class Reader(sandbox.Reader, Protocol):
    """Answers the references of a string."""

    def follow(self, id: str | None, path: paths.Path) -> object:  # noqa: A002 - the word of the model
        """What ``path`` leads to from the component with this id, or from the build if it is None.

        Raises:
            Unresolved: It leads to nothing, or to null.
            TemplateError: It cannot be followed.
        """
        ...


class Target(NamedTuple):
    """What one reference names."""

    root: str
    id: str | None
    """The component it names by a constant."""
    keys: tuple[str | int, ...]
    """How it goes on from there, as far as that is constant."""
    guarded: bool
    text: str
    """As it is written, all of it: to be cut when secrets were taken out."""


class PathText:
    """``$(path)``, the whole string: its value becomes text."""

    __slots__ = ("id", "path", "source")

    def __init__(self, source: str, path: paths.Path, id: str | None = None) -> None:  # noqa: A002 - as below
        self.source = source
        self.id = id
        self.path = path
        if id is None and len(path) > 1 and path[0] == "components" and isinstance(path[1], paths.Query):
            query = path[1]
            if query.path == ("_component_id",) and query.operator == "=" and not query.every:
                self.id = query.value
                self.path = path[2:]

    @property
    def nodes(self) -> int:
        """For the budget of a build."""
        return 1 + paths.cost(self.path)

    def value(self, reader: Reader, syntax: Syntax) -> str:
        """The text to put in its place. Raises what `Reader.follow` raises."""
        try:
            text = bounded(gjson_text(reader.follow(self.id, self.path)))
        except Unresolved:
            if syntax.keep:
                return self.source
            raise
        # Ernest's mapper finds components by their ids, and an empty one matches everything.
        return text or (self.source if syntax.keep else text)

    def targets(self) -> Iterator[Target]:
        """What it names."""
        keys: list[str | int] = []
        for segment in self.path:
            if not isinstance(segment, str):
                break
            keys.append(segment)
        root = "components" if self.id is not None else "path"
        yield Target(root, self.id, tuple(keys), guarded=False, text=self.source)


class ExpressionText:
    """Text with expressions in it; a string that is nothing but one keeps the type of its value."""

    __slots__ = ("parts", "source")

    def __init__(self, source: str, parts: tuple[str | Expression, ...]) -> None:
        self.source = source
        self.parts = parts

    @property
    def nodes(self) -> int:
        """For the budget of a build."""
        return sum(part.nodes for part in self.parts if isinstance(part, Expression))

    def value(self, reader: Reader, _: Syntax) -> Any:
        """The value to put in its place. Raises what `Expression.evaluate` raises."""
        if len(self.parts) == 1:
            only = self.parts[0]
            value = only.evaluate(reader) if isinstance(only, Expression) else only
            return bounded(value) if isinstance(value, str) else value
        size = 0
        texts = []
        for part in self.parts:
            text = part if isinstance(part, str) else text_of(part.evaluate(reader))
            size += len(text)
            reader.spend(16 + len(text))
            if size > MAX_STRING:
                raise TemplateError(f"holds more than {MAX_STRING} bytes, the limit of a rendered string")
            texts.append(text)
        return bounded("".join(texts))

    def targets(self) -> Iterator[Target]:
        """What it names."""
        text = self.source
        for part in self.parts:
            if isinstance(part, Expression):
                for lookup, guarded in zip(part.lookups, part.guarded, strict=True):
                    yield Target(lookup.root, lookup.id, _constant_keys(lookup), guarded, text)


Text: TypeAlias = PathText | ExpressionText


def _constant_keys(lookup: Lookup) -> tuple[str | int, ...]:
    keys: list[str | int] = []
    for key in lookup.keys[lookup.root == "components" :]:
        if key is None:
            break
        keys.append(key)
    return tuple(keys)


def may_refer(text: str) -> bool:
    """Whether ``text`` could hold a reference: a quick look, that is never wrong about a no."""
    return "{{" in text or text.startswith("$(")


def read(text: str, syntax: Syntax, spend: Callable[[int], None] = free) -> Text | None:
    """What ``text`` refers to; None if it is plain text.

    ``$()`` is plain text, and so is what holds ``$(`` again further on: it is not wholly of the form.

    Args:
        text: What a user wrote.
        syntax: Which references there are.
        spend: Is told of the work before it is done; there is little where the same was read lately.

    Raises:
        TemplateError: It is neither plain text nor a reference that can be read, or is over a bound.
    """
    size = len(text)
    spend(_READING + (size >> 2))
    if size <= _SHORT:
        common = _read_common(text)
        if common is not None and (syntax.expressions or isinstance(common, PathText)):
            return common
    elif size > _SHARED:
        return _read(text, syntax, spend)
    key = (text, *syntax)
    known = _known.get(key)
    if known is None:
        found = _read(text, syntax, spend)
        kept = _PER_NODE * (1 + (0 if found is None else found.nodes)) + 4 * size
        _known.keep(key, _PLAIN if found is None else found, kept)
        return found
    return None if isinstance(known, str) else known


_known: ByteCache[tuple[str, bool, bool], Text | str] = ByteCache(4 * 1024 * 1024)


@lru_cache(maxsize=512)
def _read_common(text: str) -> Text | None:
    """What a short ``text`` refers to, if it is of one of the forms that nearly all are of: fields by name.

    Other forms are left to `_read`, which reads these as well, and alike: but it takes five times as long.
    """
    if text.startswith("$("):
        found = _COMMON_PATH.fullmatch(text)
        if found is None or text.count(".") >= paths.MAX_SEGMENTS:
            return None
        return PathText(text, tuple(found[2].split(".")), found[1])
    parts = expressions.split_common(text)
    return None if parts is None else ExpressionText(text, parts)


def _read(text: str, syntax: Syntax, spend: Callable[[int], None]) -> Text | None:
    if text.startswith("$(") and text.endswith(")") and len(text) > 3 and text.find("$(", 2) < 0:
        try:
            return PathText(text, paths.parse(text[2:-1], spend))
        except AbortedError:
            raise
        except TemplateError:
            if syntax.keep:
                return None
            raise
    if not syntax.expressions or "{{" not in text:
        return None
    parts = tuple(expressions.split(text, spend))
    written = sum(len(part) for part in parts if isinstance(part, str))
    if written > MAX_STRING:
        raise TemplateError(
            f"a text of {written} characters with expressions in it; the limit of a rendered string is "
            f"{MAX_STRING} bytes: name the field in _raw if its braces are meant literally"
        )
    return ExpressionText(text, parts)
