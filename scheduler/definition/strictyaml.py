"""Strict YAML, in: the part of it that JSON can say as well, converted to JSON.

PyYAML parses the syntax (in C, by libyaml); what its events mean is decided here, because PyYAML's own
reading is that of YAML 1.1, where ``no`` is false and ``12:30:00`` is 45000. Plain scalars are those of the
core schema of YAML 1.2: dates and ``yes`` are strings. Anchors, aliases and merge keys (``<<``) are resolved;
whatever JSON cannot say, or people are known to misread, is refused with its line and a cure.
"""

import re
from array import array
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import yaml
from attrs import frozen

from scheduler.definition.limits import DEFAULT_LIMITS, Limits
from scheduler.definition.scalars import plain
from scheduler.definition.strictjson import decode, encode, not_text
from scheduler.errors import InvalidYAML
from scheduler.text import printable

MOST_EXPANDED: Final = 1_000_000
"""Most values that aliases may add to a document: ten lines of them can stand for billions."""

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Parser in C where PyYAML was built with it: it is 30 times as fast."""
_CORE: Final = "tag:yaml.org,2002:"
_BREAKS: Final = re.compile("[\x85\u2028\u2029]")
"""Characters that end a line in YAML 1.1, as libyaml reads it, and not in 1.2."""
_MERGE: Final = "<<"
_BRACES: Final = "an expression in {{ }} has to stand in quotes here: '{{ ... }}'"
_MISREAD: Final = re.compile(r":\s+(?:\{\{|[@`%])|^\s*-\s+\{\{")
"""A text without quotes that begins with characters that mean something else in YAML."""


@frozen
class Converted:
    """A YAML document as JSON, and where its values stand in the YAML."""

    json: bytes
    offsets: "array[int]"
    """Bytes of ``json`` at which a value or a key begins, in ascending order."""
    lines: "array[int]"
    """Line of each of them, from 1."""


class _Node:
    """A value: JSON text of a scalar, or a list, or an object whose keys have lines of their own."""

    __slots__ = ("count", "depth", "line", "size", "value")

    def __init__(self, line: int, value: "bytes | _List | _Object") -> None:
        self.line = line
        self.value = value
        self.count = 1
        """Values in it, itself included, with aliases expanded."""
        self.size = len(value) if isinstance(value, bytes) else 2
        """Bytes of its JSON, roughly."""
        self.depth = 0

    def include(self, inner: "_Node", key: str = "") -> None:
        self.count += inner.count
        self.size += inner.size + len(key) + 4
        self.depth = max(self.depth, inner.depth + 1)


_List: TypeAlias = list[_Node]
_Object: TypeAlias = dict[str, tuple[int, _Node]]


class _Open:
    """A list or an object that has not ended yet."""

    __slots__ = ("anchor", "key", "key_line", "merged", "merges", "node")

    def __init__(self, node: _Node, anchor: str | None) -> None:
        self.node = node
        self.anchor = anchor
        self.key: str | None = None
        """Key whose value comes next; None where a key does."""
        self.key_line = 0
        self.merges = False
        """Whether that key is ``<<``."""
        self.merged: list[_Node] = []
        """Objects whose members it takes over where it has none of its own."""


def convert(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Converted | None:
    """Convert one YAML document to JSON; None where there is none, only comments at most.

    Raises:
        InvalidYAML: it is not YAML, or says something that JSON cannot say; with its line.
    """
    root = _Reader(_decoded(data), limits).read()
    return None if root is None else _Writer().write(root)


def _decoded(data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidYAML(not_text(data), data.count(b"\n", 0, error.start) + 1) from None
    found = _BREAKS.search(text)
    if found is not None:
        name = f"U+{ord(found[0]):04X}"
        cure = f'write it as "\\u{ord(found[0]):04x}", in double quotes'
        raise InvalidYAML(
            f"the character {name}, a line break in some versions of YAML: {cure}", _line(text, found)
        )
    return text


def _line(text: str, found: re.Match[str]) -> int:
    return text.count("\n", 0, found.start()) + 1


class _Reader:
    """Makes nodes of the events of a parser."""

    def __init__(self, text: str, limits: Limits) -> None:
        self.text = text
        self.limits = limits
        self.root: _Node | None = None
        self.anchors: dict[str, _Node | None] = {}
        """Nodes by their anchors; None: it has begun and not ended."""
        self.open: list[_Open] = []
        self.expanded = 0
        """Values that aliases have added."""
        self.expanded_bytes = 0

    def read(self) -> _Node | None:
        """Return the document; None where there is none."""
        try:
            for event in yaml.parse(self.text, Loader=_LOADER):
                assert event.start_mark is not None
                self._take(event, event.start_mark.line + 1)
        except yaml.MarkedYAMLError as error:
            raise self._explained(error) from None
        except yaml.reader.ReaderError as error:
            before = self.text[: error.position] if isinstance(error.position, int) else ""
            message = f"the character U+{_code(error.character):04X}, which YAML does not allow"
            raise InvalidYAML(message, before.count("\n") + 1) from None
        return self.root

    def _take(self, event: Any, line: int) -> None:
        if isinstance(event, yaml.ScalarEvent):
            if self._awaits_key():
                self._take_key(event, line)
            else:
                self._keep(event.anchor, node := _Node(line, self._scalar(event, line)[1]))
                self._add(node)
        elif isinstance(event, yaml.AliasEvent):
            self._take_alias(event.anchor or "", line)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._begin(event, line)
        elif isinstance(event, yaml.CollectionEndEvent):
            ended = self.open.pop()
            self._end(ended)
            self._add(ended.node)
        elif isinstance(event, yaml.DocumentStartEvent):
            if self.root is not None:
                raise InvalidYAML("a second document begins here: a file holds one", line)
            if event.version == (1, 1):
                raise InvalidYAML("this is read as YAML 1.2: remove the directive %YAML 1.1", line)

    def _awaits_key(self) -> bool:
        top = self.open[-1] if self.open else None
        return top is not None and isinstance(top.node.value, dict) and top.key is None

    def _keep(self, anchor: str | None, node: _Node | None) -> None:
        if anchor:
            self.anchors[anchor] = node

    def _begin(self, event: Any, line: int) -> None:
        mapping = isinstance(event, yaml.MappingStartEvent)
        if self._awaits_key():
            if mapping and "{{" in self.text.splitlines()[line - 1]:
                raise InvalidYAML(_BRACES, line)
            raise InvalidYAML("a key is a text, and no list or object", line)
        if event.tag not in {None, "!", f"{_CORE}{'map' if mapping else 'seq'}"}:
            raise InvalidYAML(_unknown(event.tag), line)
        self._keep(event.anchor, None)
        node = _Node(line, {} if mapping else [])
        self.open.append(_Open(node, event.anchor))

    def _end(self, ended: _Open) -> None:
        node = ended.node
        if isinstance(node.value, dict):
            for other in ended.merged:
                assert isinstance(other.value, dict)
                for key, (line, inner) in other.value.items():
                    if key not in node.value:
                        node.value[key] = line, inner
                        node.include(inner, key)
        if node.depth >= self.limits.max_depth:
            raise InvalidYAML(f"nested deeper than max_depth {self.limits.max_depth}", node.line)
        self._keep(ended.anchor, node)

    def _take_alias(self, name: str, line: int) -> None:
        if name not in self.anchors:
            raise InvalidYAML("an alias (*) has no anchor above it: quote it if it is a text", line)
        node = self.anchors[name]
        if node is None:
            raise InvalidYAML(f"*{printable(name, 80)} stands within what it refers to", line)
        self.expanded += node.count
        self.expanded_bytes += node.size
        if self.expanded > MOST_EXPANDED:
            most = f"more than {MOST_EXPANDED:,} values, the limit"
            raise InvalidYAML(f"aliases such as *{printable(name, 80)} add {most}", line)
        if self.expanded_bytes > self.limits.max_definition_bytes:
            most = f"max_definition_bytes is {self.limits.max_definition_bytes}"
            raise InvalidYAML(f"aliases such as *{printable(name, 80)} make it too large: {most}", line)
        if self._awaits_key():
            if not isinstance(node.value, bytes) or not node.value.startswith(b'"'):
                raise InvalidYAML("a key is a text", line)
            self._set_key(decode(node.value), line)
        else:
            self._add(node)

    def _take_key(self, event: Any, line: int) -> None:
        kind, value = self._scalar(event, line)
        if kind != "str":
            shown = printable(event.value, 80)
            what = {"null": "empty or null", "bool": "true or false"}.get(kind, "a number")
            raise InvalidYAML(f"a key is a text, and {shown!r} is {what}: write it in quotes", line)
        self._keep(event.anchor, _Node(line, value))
        merges = event.value == _MERGE and event.implicit[0]
        self._set_key(event.value, line, merges=merges)

    def _set_key(self, key: str, line: int, *, merges: bool = False) -> None:
        top = self.open[-1]
        assert isinstance(top.node.value, dict)
        if not merges and key in top.node.value:
            first = top.node.value[key][0]
            raise InvalidYAML(f"the key {printable(key, 80)!r} stands in line {first} already", line)
        top.key, top.key_line, top.merges = key, line, merges

    def _add(self, node: _Node) -> None:
        """Put a value into the list or object that is open."""
        if not self.open:
            self.root = node
            return
        top = self.open[-1]
        if isinstance(top.node.value, list):
            top.node.value.append(node)
            top.node.include(node)
            return
        assert isinstance(top.node.value, dict)
        assert top.key is not None
        if top.merges:
            top.merged += self._to_merge(node, top.key_line)
        else:
            top.node.value[top.key] = top.key_line, node
            top.node.include(node, top.key)
        top.key = None

    def _to_merge(self, node: _Node, line: int) -> Iterator[_Node]:
        for one in node.value if isinstance(node.value, list) else [node]:
            if not isinstance(one.value, dict):
                raise InvalidYAML("<< takes an object, or a list of them, to merge", line)
            yield one

    def _scalar(self, event: Any, line: int) -> tuple[str, bytes]:
        """Return the kind of a scalar and its JSON."""
        tag, text = event.tag, event.value
        if (tag is None and not event.implicit[0]) or tag in {"!", f"{_CORE}str"}:
            return "str", encode(text)
        found = plain(text, line, self.limits)
        if tag is None or tag == f"{_CORE}{found[0]}" or (tag == f"{_CORE}float" and found[0] == "int"):
            return found
        if tag.removeprefix(_CORE) in {"null", "bool", "int", "float"}:
            what = tag.removeprefix(_CORE)
            raise InvalidYAML(f"a value cannot be read as !!{what}", line)
        raise InvalidYAML(_unknown(tag), line)

    def _explained(self, error: yaml.MarkedYAMLError) -> InvalidYAML:
        """Return a parser's error with what it means and, where that is likely, the cure."""
        message = str(error.problem or error.context or "it cannot be read")
        begun = error.context_mark
        mark = begun if error.problem_mark is None else error.problem_mark
        if mark is None:
            return InvalidYAML(message, 1)
        lines = self.text.splitlines()
        if lines[mark.line : mark.line + 1] and lines[mark.line][mark.column : mark.column + 1] == "\t":
            return InvalidYAML("a tab: YAML is indented with spaces", mark.line + 1, mark.column + 1)
        if begun is not None and begun.line < mark.line:
            message = f"{message}, {error.context} from line {begun.line + 1}"
        # A mistake at the end of a line is often only found in the next one.
        for near in (mark.line, mark.line - 1):
            written = lines[near] if 0 <= near < len(lines) else ""
            if _MISREAD.search(written):
                cure = _BRACES if "{{" in written else "quote a text that begins with such a character"
                return InvalidYAML(f"{message}; {cure}", near + 1)
        return InvalidYAML(message, mark.line + 1, mark.column + 1)


def _unknown(tag: str) -> str:
    shown = tag.replace(_CORE, "!!")
    return f"the tag {printable(shown, 80)}: a build holds texts, numbers, true, false, null, lists, objects"


def _code(character: Any) -> int:
    return character if isinstance(character, int) else ord(str(character)[:1] or "\0")


class _Writer:
    """Writes nodes as JSON, and notes where each came from."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._offsets, self._lines = array("Q"), array("Q")

    def write(self, root: _Node) -> Converted:
        self._write(root)
        return Converted(b"".join(self._parts), self._offsets, self._lines)

    def _write(self, node: _Node) -> None:
        value = node.value
        self._mark(node.line)
        if isinstance(value, bytes):
            self._put(value)
        elif isinstance(value, list):
            self._put(b"[")
            for at, inner in enumerate(value):
                if at:
                    self._put(b",")
                self._write(inner)
            self._put(b"]")
        else:
            self._put(b"{")
            for at, (key, (line, inner)) in enumerate(value.items()):
                if at:
                    self._put(b",")
                self._mark(line)
                self._put(encode(key) + b":")
                self._write(inner)
            self._put(b"}")

    def _mark(self, line: int) -> None:
        self._offsets.append(self._size)
        self._lines.append(line)

    def _put(self, part: bytes) -> None:
        self._parts.append(part)
        self._size += len(part)
