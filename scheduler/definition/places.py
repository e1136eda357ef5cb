"""Places of values in a submitted component, and the fields that are never rendered."""

import re
from collections.abc import Mapping
from typing import Any

from scheduler.errors import TemplateError

IDENTITY = frozenset({"_component_id", "_action", "_state", "service", "_raw", "_secret", "adoptable"})
"""Fields that identify a component. They are never rendered."""

MAX_PLACE = 1024
"""Most characters of the keys, together, under which a reference may stand."""
MAX_NAMES = 1_000
"""Most names in a ``_raw`` or a ``_secret``."""
MAX_NAME = 2_048
"""Most characters of one of them."""

Raw = dict[str, Any]
"""Fields that are not rendered, as a tree of keys; an empty tree stands for everything below."""

_READING = 40
_PER_NAME = 80
_PER_LETTER = 40
"""Units of work for reading a ``_raw``, each of its names, and each letter, which may be a key or an
index."""

_INDEX = re.compile(r"\[([0-9]{1,9})\]")
_KEYS = re.compile(r"(?:[^.\\]++|\\.)++", re.DOTALL)
_NONE_RAW: Raw = {name: {} for name in IDENTITY}


def raw_fields(document: Mapping[str, Any]) -> Raw:
    """Return the fields of a component that are never rendered: its identity, and those of its ``_raw``.

    Raises:
        TemplateError: ``_raw`` is not a list of names.
    """
    return {**named_fields(document, "_raw"), **_NONE_RAW} if "_raw" in document else _NONE_RAW


def fields_work(document: Mapping[str, Any]) -> int:
    """Return the units of work of `raw_fields`."""
    names = document.get("_raw")
    if not isinstance(names, list):
        return _READING
    some = names[:MAX_NAMES]
    return (
        _READING + _PER_NAME * len(some) + _PER_LETTER * sum(len(one) for one in some if isinstance(one, str))
    )


def named_fields(document: Mapping[str, Any], setting: str) -> Raw:
    """Return the fields that a component names in a ``setting`` of its own, ``_raw`` or ``_secret``.

    Names are paths of keys, as in ``tags.x`` or ``rules[0].script``; a dot within a key follows a backslash.

    Raises:
        TemplateError: it is not a list of such names, or of too many or too long ones.
    """
    names = document.get(setting)
    if names is None:
        return {}
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise TemplateError(f'{setting} is a list of names of fields, such as ["user_data", "tags.x"]')
    if len(names) > MAX_NAMES:
        raise TemplateError(f"{setting} has {len(names):,} names; the limit is {MAX_NAMES:,}")
    longest = max(map(len, names), default=0)
    if longest > MAX_NAME:
        raise TemplateError(f"{setting} has a name of {longest:,} characters; the limit is {MAX_NAME:,}")
    tree: Raw = {}
    for name in names:
        if name in document:
            tree[name] = {}
            continue
        if "[" in name or "\\" in name:
            keys = [re.sub(r"\\(.)", r"\1", key) for key in _KEYS.findall(_INDEX.sub(r".\1", name))]
        else:
            keys = [key for key in name.split(".") if key]
        below = tree
        for at, key in enumerate(keys):
            inner = below.get(key)
            if inner == {}:
                break
            if at == len(keys) - 1:
                below[key] = {}
            else:
                below = below.setdefault(key, {})
    return tree


class Owner:
    """A submitted component that is being looked at."""

    __slots__ = ("document", "fault", "id", "raw")

    def __init__(self, document: Mapping[str, Any], raw: Raw | None = None) -> None:
        self.document = document
        self.id = str(document.get("_component_id"))
        self.fault = ""
        """Reason why none of it can be rendered. Its plain fields can be read all the same."""
        if raw is None:
            try:
                raw = raw_fields(document)
            except TemplateError as error:
                self.fault = str(error)
                raw = _NONE_RAW
        self.raw = raw


class Place:
    """The place of a value in a submitted component."""

    __slots__ = ("_key", "_parent", "_text", "owner", "raw", "size")

    def __init__(
        self,
        owner: Owner,
        raw: Raw | None,
        parent: "Place | None" = None,
        key: str | int = "",
        size: int = 0,
    ) -> None:
        self.owner = owner
        self.raw = raw
        self.size = size
        """Most characters of `text`, which is made on demand."""
        self._parent = parent
        self._key = key
        self._text: str | None = "" if parent is None else None

    @classmethod
    def of(cls, owner: Owner) -> "Place":
        """Return the place of the whole component."""
        return cls(owner, owner.raw)

    def child(self, key: str | int) -> "Place | None":
        """Return the place of the value under ``key``; None if it is never rendered."""
        raw = None if self.raw is None else self.raw.get(str(key))
        if raw is not None and not raw:
            return None
        return Place(self.owner, raw, self, key, self.size + (len(key) + 1 if isinstance(key, str) else 12))

    @property
    def text(self) -> str:
        """Path such as ``tags.x`` or ``rules[0]``."""
        if self._text is None:
            assert self._parent is not None
            self._text = join_place(self._parent.text, self._key)
        return self._text


def join_place(place: str, key: str | int) -> str:
    """Join a place and a key: ``tags`` and ``x`` to ``tags.x``, ``rules`` and 0 to ``rules[0]``."""
    if isinstance(key, int):
        return f"{place}[{key}]"
    return f"{place}.{key}" if place else key
