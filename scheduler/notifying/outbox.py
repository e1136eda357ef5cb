"""Outbox: the notifications that wait to be sent to one host, bounded in number and bytes.

It is synchronous, and gets the time as an argument. It is searched from end to end, as it is short.
"""

from typing import Final

from attrs import define

from scheduler.definition.destinations import Destination
from scheduler.notifying.notice import Notice

MOST: Final = 1_000
"""Most notifications that wait for one host."""
MOST_BYTES: Final = 4 * 1024 * 1024
"""Most bytes of their bodies."""


@define(eq=False)
class Letter:
    """Notification on its way to one URL."""

    notice: Notice
    destination: Destination
    number: int
    """Number in the order of arrival."""
    tries: int = 0
    """Tries so far."""
    due: float = 0.0
    """Time of the next try, in seconds of the caller's clock."""


class Outbox:
    """Notifications that wait for one host.

    Args:
        most: most letters; the oldest is dropped for a new one.
        most_bytes: most bytes of their bodies.
    """

    def __init__(self, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._letters: dict[int, Letter] = {}
        self._bytes = 0
        self._held_until = 0.0

    def __len__(self) -> int:
        return len(self._letters)

    def put(self, letter: Letter) -> list[Letter]:
        """Add a letter; returns those that were dropped for it, the oldest first."""
        self._letters[letter.number] = letter
        self._bytes += len(letter.notice.body)
        dropped = []
        while len(self._letters) > self._most or self._bytes > self._most_bytes:
            dropped.append(self._remove(min(self._letters)))
        return dropped

    def take(self, now: float) -> Letter | None:
        """Take the letter that has been due for longest; None where none is due."""
        if now < self._held_until:
            return None
        letter = min(self._letters.values(), key=_turn, default=None)
        return None if letter is None or letter.due > now else self._remove(letter.number)

    def next_due(self) -> float | None:
        """Return the time at which the next letter is due; None where none waits."""
        if not self._letters:
            return None
        return max(self._held_until, min(letter.due for letter in self._letters.values()))

    def hold(self, until: float) -> None:
        """Let no letter leave before a time."""
        self._held_until = max(self._held_until, until)

    def hurry(self) -> None:
        """Make every letter due at once."""
        self._held_until = 0.0
        for letter in self._letters.values():
            letter.due = 0.0

    def drop(self, url: str) -> int:
        """Drop every letter to a URL; returns their number."""
        numbers = [letter.number for letter in self._letters.values() if letter.destination.url == url]
        for number in numbers:
            self._remove(number)
        return len(numbers)

    def _remove(self, number: int) -> Letter:
        letter = self._letters.pop(number)
        self._bytes -= len(letter.notice.body)
        return letter


def _turn(letter: Letter) -> tuple[float, int]:
    return letter.due, letter.number
