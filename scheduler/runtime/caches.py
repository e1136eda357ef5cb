"""Caches that are bounded by bytes: what is in them comes from outside, and an entry may be any size."""

from typing import Final, Generic, TypeVar

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
_ENTRY: Final = 200
"""Bytes for an entry itself, beside what it holds."""


class ByteCache(Generic[_Key, _Value]):
    """Values by key, of at most so many bytes as their sizes say; what was not asked for lately goes first.

    There are two generations. What is found in the older one moves to the younger; when that is half of all
    that is allowed, the older one is dropped whole. Threads may use it at once: the worst that comes of it
    is a value that is made twice.

    Args:
        most: bytes.
    """

    __slots__ = ("_half", "_old", "_size", "_young")

    def __init__(self, most: int) -> None:
        self._half = most // 2
        self._young: dict[_Key, tuple[_Value, int]] = {}
        self._old: dict[_Key, tuple[_Value, int]] = {}
        self._size = 0

    def get(self, key: _Key) -> _Value | None:
        """The value under ``key``, or None."""
        entry = self._young.get(key)
        if entry is None:
            entry = self._old.get(key)
            if entry is None:
                return None
            self._put(key, entry)
        return entry[0]

    def keep(self, key: _Key, value: _Value, size: int) -> None:
        """Keep a value that takes ``size`` bytes with its key; not if that is too much for the cache."""
        size += _ENTRY
        if size <= self._half:
            self._put(key, (value, size))

    def _put(self, key: _Key, entry: tuple[_Value, int]) -> None:
        if self._size + entry[1] > self._half:
            self._old, self._young, self._size = self._young, {}, 0
        self._young[key] = entry
        self._size += entry[1]

    @property
    def size(self) -> int:
        """Bytes that are held, at most: each generation is at most half of what is allowed."""
        return sum(size for half in (self._young, self._old) for _, size in half.values())

    def __len__(self) -> int:
        return len(self._young.keys() | self._old.keys())
