"""Keeps the last value of something that takes long to make and is asked for often."""

import math
from typing import Final, Generic, TypeVar

import trio

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
_KEPT: Final = 60.0
"""Seconds from when a value is kept until it is dropped, at most."""


class Remembered(Generic[_Key, _Value]):
    """Keeps one value, with the key that it is good for; `run` drops it."""

    def __init__(self) -> None:
        self._entry: tuple[_Key, float, _Value] | None = None
        self._kept = trio.Event()

    def get(self, key: _Key) -> _Value | None:
        """Return the value, if it is that of this key and still good."""
        entry = self._entry
        if entry is None or entry[0] != key or trio.current_time() >= entry[1]:
            return None
        return entry[2]

    def keep(self, key: _Key, value: _Value, until: float = math.inf) -> None:
        """Keep a value in place of the last one, good up to a time of Trio's clock."""
        self._entry = key, until, value
        self._kept.set()

    async def run(self) -> None:
        """Drop the value from time to time; never returns."""
        while True:
            await self._kept.wait()
            await trio.sleep(_KEPT)
            self._kept = trio.Event()
            self._entry = None
