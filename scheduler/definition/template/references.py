"""References in one string: plain text, a path in ``$( )``, or text with expressions in ``{{ }}``.

A string is read once; components with equal strings share the result (WIRE: "References").
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
"""Characters up to which a string is kept for the next component with an equal one."""
_PER_NODE: Final = 600
"""Bytes that are kept for a node of a string that was read, and as many for the string itself."""
READING: Final = 160
"""Units of work for a string that may refer, beside parsing; for a common form there is nothing else."""
_SHORT: Final = 256
"""Characters up to which a string may have a common form."""
_COMMON_PATH: Final = re.compile(
    r"""\$\(components\.\#\[_component_id="([^"\\$]++)"\]\.([A-Za-z_][A-Za-z0-9_]*+(?:\.[A-Za-z_][A-Za-z0-9_]*+)*+)\)"""
)
_PLAIN: Final = "plain"


class Syntax(NamedTuple):
    """Valid forms of references, and the treatment of those that lead to nothing."""

    expressions: bool = True
    """Whether ``{{ }}`` is special."""
    keep: bool = False
    """Whether an invalid ``$(path)``, or one that leads to nothing or to empty text, stays as it stands."""


class ReferenceReader(sandbox.LookupReader, Protocol):
    """A source of answers for the references of a string."""

    def follow(self, id: str | None, path: paths.Path) -> object:  # noqa: A002 - the word of the model
        """Return the value of ``path`` from the component with this id, or from the build if it is None.

        Raises:
            Unresolved: it leads to nothing, or to null.
            TemplateError: it cannot be followed.
        """
        ...


class Target(NamedTuple):
    """Target of one reference."""

    root: str
    id: str | None
    """Id of the component, if it is a constant."""
    keys: tuple[str | int, ...]
    """Keys from there on, as far as they are constant."""
    guarded: bool
    text: str
    """Text of the reference, whole: to be cut after secrets were masked."""


class PathText:
    """``$(path)`` as a whole string: its value becomes text."""

    __slots__ = ("id", "path", "source")

    def __init__(self, source: str, path: paths.Path, id: str | None = None) -> None:  # noqa: A002 - as below
        self.source = source
        self.id = id
        self.path = path
        if id is None and len(path) > 1 and path[0] == "components" and isinstance(path[1], paths.PathQuery):
            query = path[1]
            if query.path == ("_component_id",) and query.operator == "=" and not query.every:
                self.id = query.value
                self.path = path[2:]

    @property
    def nodes(self) -> int:
        """Number of nodes, for the budget of a build."""
        return 1 + paths.cost(self.path)

    def value(self, reader: ReferenceReader, syntax: Syntax) -> str:
        """Return the text for its place; raises as `ReferenceReader.follow`."""
        try:
            text = bounded(gjson_text(reader.follow(self.id, self.path)))
        except Unresolved:
            if syntax.keep:
                return self.source
            raise
        # Ernest's mapper finds components by their ids, and an empty one matches everything.
        return text or (self.source if syntax.keep else text)

    def targets(self) -> Iterator[Target]:
        """Yield its target."""
        keys: list[str | int] = []
        for segment in self.path:
            if not isinstance(segment, str):
                break
            keys.append(segment)
        root = "components" if self.id is not None else "path"
        yield Target(root, self.id, tuple(keys), guarded=False, text=self.source)


class ExpressionText:
    """Text with expressions in it; a string that is just one expression keeps the type of its value."""

    __slots__ = ("parts", "source")

    def __init__(self, source: str, parts: tuple[str | Expression, ...]) -> None:
        self.source = source
        self.parts = parts

    @property
    def nodes(self) -> int:
        """Number of nodes, for the budget of a build."""
        return sum(part.nodes for part in self.parts if isinstance(part, Expression))

    def value(self, reader: ReferenceReader, _: Syntax) -> Any:
        """Return the value for its place; raises as `Expression.evaluate`."""
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
        """Yield its targets."""
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
    """Whether ``text`` could hold a reference: a quick look that never misses one."""
    return "{{" in text or text.startswith("$(")


def read(text: str, syntax: Syntax, spend: Callable[[int], None] = free) -> Text | None:
    """Read the references of ``text``; None for plain text.

    ``$()`` is plain text, and so is a string with another ``$(`` further on: it does not have the form as a
    whole.

    Args:
        text: text of a user.
        syntax: valid forms of references.
        spend: function that is called with the work before it is done; little for a text that was read
            lately.

    Raises:
        TemplateError: it is neither plain text nor a readable reference, or is over a limit.
    """
    size = len(text)
    spend(READING + (size >> 2))
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
    """Read a short ``text`` of one of the forms that nearly all have: fields by name.

    Other forms are left to `_read`, which also reads these, with the same result: but it takes five times as
    long.
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
