"""Caches bounded by bytes: their entries come from outside, and may have any size."""

from typing import Final, Generic, TypeVar

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
_ENTRY: Final = 200
"""Bytes of an entry itself, beside its key and value."""


class ByteCache(Generic[_Key, _Value]):
    """Cache of values by key, up to a number of bytes; the values unused for longest are dropped first.

    There are two generations. A value found in the older one moves to the younger. When the younger one holds
    half of the allowed bytes, the older one is dropped as a whole. Threads may use a cache at the same time:
    at worst, a value is made twice.

    Args:
        most: the largest size, in bytes.
    """

    __slots__ = ("_half", "_old", "_size", "_young")

    def __init__(self, most: int) -> None:
        self._half = most // 2
        self._young: dict[_Key, tuple[_Value, int]] = {}
        self._old: dict[_Key, tuple[_Value, int]] = {}
        self._size = 0

    def get(self, key: _Key) -> _Value | None:
        """Return the value of ``key``, or None."""
        entry = self._young.get(key)
        if entry is None:
            entry = self._old.get(key)
            if entry is None:
                return None
            self._put(key, entry)
        return entry[0]

    def keep(self, key: _Key, value: _Value, size: int) -> None:
        """Keep a value that takes ``size`` bytes with its key, unless it is too large for the cache."""
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
        """Bytes that are held; each generation has at most half of the allowed bytes."""
        return sum(size for half in (self._young, self._old) for _, size in half.values())

    def __len__(self) -> int:
        return len(self._young.keys() | self._old.keys())
