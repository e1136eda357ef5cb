"""Values given beside a build's file: whole documents and single assignments, put into its ``options``.

They are applied in order: the file, each document, each assignment. Objects are merged member by member, at
any depth; anything else, lists and null included, takes the place of what was there.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from attrs import field, frozen

from scheduler.definition.converter import BUILD_ID
from scheduler.definition.limits import DEFAULT_LIMITS, Limits
from scheduler.definition.lines import Lines
from scheduler.definition.strictjson import Raw, decode, encode, kind, split_object
from scheduler.errors import InvalidJSON, InvalidSettings, OverLimit
from scheduler.text import printable

_KEYS: Final = re.compile(r"(?:[^.\\]++|\\.)++", re.DOTALL)
_PATH: Final = re.compile(rf"{_KEYS.pattern}(?:\.{_KEYS.pattern})*+", re.DOTALL)
_MOST_KEYS: Final = 60
"""Most keys of a path; the limit of nesting refuses deeper values anyway."""
_SHOWN: Final = 80
"""Characters of a path or a key that are shown."""
_BEGINS_JSON: Final = ("{", "[", '"')


@frozen
class Assignment:
    """One value for one place in ``options``."""

    flag: str
    """Flag that it came with."""
    path: tuple[str, ...]
    value: Any = field(repr=False)
    doubtful: bool = False
    """Whether it begins as JSON does, and is taken as a text because it is none."""

    @property
    def origin(self) -> str:
        """Name of it for people; never shows the value, which may be secret."""
        return f"{self.flag} {printable('.'.join(self.path), _SHOWN)}"


@frozen
class ValuesFile:
    """Document with values."""

    name: str
    values: Mapping[str, Any] = field(repr=False)
    lines: Lines = field(repr=False)


@frozen
class Overlay:
    """All that is put over a build's file."""

    id: str | None = None
    files: tuple[ValuesFile, ...] = ()
    assignments: tuple[Assignment, ...] = ()

    def apply(self, data: bytes, limits: Limits = DEFAULT_LIMITS) -> bytes:
        """Return the build with the id and the values; as it is if it is no build: its checks say why.

        Args:
            data: the build as JSON.
            limits: bounds on its content.

        Raises:
            InvalidSettings: a value has no place in it.
        """
        if self.id is None and not self.files and not self.assignments:
            return data
        try:
            members: dict[str, Any] = dict(split_object(data, limits))
            if self.files or self.assignments:
                options = decode(members.get("options", Raw(b"null")), limits, level=1)
                members["options"] = self._options(options)
        except InvalidJSON:
            return data
        if self.id is not None:
            members["id"] = self.id
        return encode(members)

    def _options(self, options: Any) -> Any:
        if options is None:
            options = {}
        if not isinstance(options, dict):
            raise InvalidSettings(f"the build's options are {kind(options)}, and values need an object")
        for one in self.files:
            options = merged(options, one.values)
        for assignment in self.assignments:
            options = assigned(options, assignment)
        return options

    def origin(self, place: str) -> str | None:
        """Return where the value at ``place`` came from, with the line; None: from the build's own file."""
        if place == "id" and self.id is not None:
            return "--id"
        if place != "options" and not place.startswith("options."):
            return None
        keys = tuple(place.split(".")[1:])
        for assignment in reversed(self.assignments):
            path = assignment.path
            common = min(len(path), len(keys))
            if path[:common] == keys[:common]:
                return assignment.origin
        for one in reversed(self.files):
            if keys and keys[0] in one.values:
                line = one.lines.of(".".join(keys))
                return f"{printable(one.name)}:{line}"
        return None


def build_id(text: str) -> str:
    """Check the id of a build.

    Raises:
        InvalidSettings: it is none.
    """
    if not BUILD_ID.fullmatch(text):
        raise InvalidSettings(f"--id: {text[:_SHOWN]!r} is not 1 to 128 of A-Z a-z 0-9 . _ @ : / -")
    return text


def parse_assignment(
    text: str, flag: str, *, as_string: bool = False, limits: Limits = DEFAULT_LIMITS
) -> Assignment:
    r"""Read ``PATH=VALUE``: keys with dots between them, and JSON or, where it is none, a text.

    A dot within a key follows a backslash, as in ``tags.kubernetes\.io=x``.

    Args:
        text: text of the flag.
        flag: the flag, for errors.
        as_string: whether the value is a text whatever it looks like.
        limits: bounds on the value.

    Raises:
        InvalidSettings: it does not have this form, or the value is over a limit. Values are not shown.
    """
    path, separator, written = text.partition("=")
    if not separator:
        raise InvalidSettings(f"{flag}: {path[:_SHOWN]!r} has no value: write PATH=VALUE, as in size=3")
    keys = tuple(re.sub(r"\\(.)", r"\1", key) for key in _KEYS.findall(path)) if _PATH.fullmatch(path) else ()
    if not keys:
        raise InvalidSettings(f"{flag}: {path[:_SHOWN]!r} is no path of keys, such as size or retry.attempts")
    if len(keys) > _MOST_KEYS:
        raise InvalidSettings(f"{flag}: a path has at most {_MOST_KEYS} keys; this one has {len(keys)}")
    if as_string:
        return Assignment(flag, keys, written)
    try:
        return Assignment(flag, keys, decode(written.encode(errors="replace"), limits))
    except OverLimit as error:
        raise InvalidSettings(f"{flag} {path[:_SHOWN]}: {error}") from None
    except InvalidJSON:
        return Assignment(flag, keys, written, written.startswith(_BEGINS_JSON))


def merged(under: Any, over: Any) -> Any:
    """Return ``under`` with ``over`` put into it; neither is changed."""
    if not isinstance(under, Mapping) or not isinstance(over, Mapping):
        return over
    found = dict(under)
    for key, value in over.items():
        found[key] = merged(found[key], value) if key in found else value
    return found


def assigned(options: Any, assignment: Assignment) -> Any:
    """Return ``options`` with the value in its place; objects on the way are made, and merged at its end.

    A number leads into a list, where there is one.

    Raises:
        InvalidSettings: something else is in the way.
    """
    return _assigned(options, assignment, assignment.path)


def _assigned(value: Any, assignment: Assignment, path: Sequence[str]) -> Any:
    if not path:
        return merged(value, assignment.value)
    key, rest = path[0], path[1:]
    if value is None:
        value = {}
    if isinstance(value, Mapping):
        return {**value, key: _assigned(value.get(key), assignment, rest)}
    done = assignment.path[: len(assignment.path) - len(path)]
    where = f"{assignment.flag}: options.{'.'.join(done)} is {kind(value)}"
    if not isinstance(value, list):
        raise InvalidSettings(f"{where}, and has no {printable(key, _SHOWN)!r}")
    if not (key.isascii() and key.isdecimal() and len(key) < 10 and int(key) < len(value)):
        size = f"of {len(value):,}, counted from 0"
        raise InvalidSettings(f"{where} {size}, and has no {printable(key, _SHOWN)!r}; give the whole list")
    at = int(key)
    return [*value[:at], _assigned(value[at], assignment, rest), *value[at + 1 :]]


def unused(paths: Iterable[Sequence[str]], read: Sequence[Sequence[str | int]]) -> list[Sequence[str]]:
    """Return the paths in ``options`` that nothing reads.

    Args:
        paths: paths that were given.
        read: paths that are read; what leads to one of them, or begins with one, is read as well.
    """
    texts = [tuple(map(str, one)) for one in read]
    return [path for path in paths if not any(one[: len(path)] == tuple(path)[: len(one)] for one in texts)]
