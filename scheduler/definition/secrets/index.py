"""An index of texts that are to be found in others: each is kept once, and all are found in one pass."""

from collections.abc import Iterator
from itertools import compress
from typing import Final

SHORTEST: Final = 4
"""Fewest characters of a text; a shorter one would be found everywhere."""
LONGEST_START: Final = 64
"""Characters of a long text that are enough to find it; the rest is masked as far as it is there."""
_STARTS: Final = (4, 8, 16, 32, LONGEST_START)
_TRIES: Final = 1_024
"""Looks at the texts for one place, beside one for each eight characters of what is searched."""
_A_COMPARISON: Final = 16
"""Looks that a comparison with a whole text counts for."""
_MANY: Final = 64
"""Most texts that are compared at one place at the end of what is searched."""

Span = tuple[int, int]


def folded(text: str) -> str:
    """Return ``text`` as it is compared: without regard to capitals, and of the same length."""
    # The one letter that becomes two, and the one that depends on its neighbours.
    return text.replace("\u0130", "i").lower().replace("\u03c2", "\u03c3")


class Tries:
    """Budget of looks for one text; once it is used up, the rest of the text counts as found."""

    __slots__ = ("left",)

    def __init__(self, length: int) -> None:
        self.left = _TRIES + length // 8


class SecretIndex:
    """The texts by their first characters: 4 to 64, the largest power of two not above their length.

    That leaves very few to compare with at any place. If an attacker has made it many, the searched text
    counts as found from there to its end.

    Adding and searching may happen in two threads: a text that was added before is found.
    """

    __slots__ = ("_by_start", "_characters", "_starts")

    def __init__(self) -> None:
        self._characters: list[bytearray] = []
        """Characters at each of the first four places, as tables for `bytes.translate`."""
        self._starts: dict[str, int] = {}
        """Lengths of start under which texts are found, as bits, by the first 4 characters."""
        self._by_start: dict[int, dict[str, list[str]]] = {}

    def add(self, text: str) -> None:
        """Add ``text``, which is folded and not too short."""
        length = min(1 << len(text).bit_length() - 1, LONGEST_START)
        self._by_start.setdefault(length, {}).setdefault(text[:length], []).append(text)
        start = text[:SHORTEST]
        if start not in self._starts:
            self._characters = self._characters or [bytearray(256) for _ in range(SHORTEST)]
            for table, character in zip(self._characters, start.encode("latin-1", "replace"), strict=True):
                table[character] = 1
        self._starts[start] = self._starts.get(start, 0) | length

    def find(self, text: str, tries: Tries, *, cut: bool) -> Iterator[Span]:
        """Yield the places of the texts in ``text``, which is folded, one after another and not touching.

        Args:
            text: the searched text.
            tries: budget of looks; it is used up.
            cut: whether a text may stand at the end without its own end.
        """
        size = len(text)
        begin = end = -1
        for place in self._places(text):
            if end == size:
                break
            if tries.left < 0:
                found = size
            else:
                found = self._longest(text, place, tries)
                if cut and not found and self._may_begin(text, place):
                    found = size
            if found <= end:
                continue
            if place > end:
                if end > 0:
                    yield begin, end
                begin = place
            end = found
        if end > 0:
            yield begin, end

    def _places(self, text: str) -> list[int]:
        """Return the places in ``text`` of the first characters of any of the texts."""
        starts = self._starts
        data = text.encode("latin-1", "replace")
        count = len(data) - SHORTEST + 1
        if not starts or count <= 0:
            return []
        # Integers with a byte for each place: a loop over the places would take twenty times as long.
        may_be = -1
        for index, table in enumerate(self._characters):
            may_be &= int.from_bytes(data[index : index + count].translate(table), "little")
        likely = compress(range(count), may_be.to_bytes(count, "little"))
        return [at for at in likely if text[at : at + SHORTEST] in starts]

    def _longest(self, text: str, place: int, tries: Tries) -> int:
        """Return the end of the longest text at a place; 0 if there is none."""
        found = 0
        lengths = self._starts[text[place : place + SHORTEST]]
        for length in _STARTS:
            if length > lengths:
                break
            if not lengths & length:
                continue
            tries.left -= 1
            for known in self._by_start[length].get(text[place : place + length], ()):
                tries.left -= 1 + (len(known) >> 8)
                if tries.left < 0:
                    return len(text)
                if text.startswith(known, place):
                    found = max(found, place + len(known))
                elif length == LONGEST_START:
                    tries.left -= _A_COMPARISON
                    found = max(found, place + _common(known, text, place))
        return found

    def _may_begin(self, text: str, place: int) -> bool:
        """Whether the rest of ``text`` may be the beginning of one of the texts."""
        rest = text[place : place + LONGEST_START]
        if place + len(rest) < len(text):
            # Longer ones were searched for already.
            return False
        lengths = self._starts[rest[:SHORTEST]]
        for length in _STARTS:
            if lengths & length:
                known = self._by_start[length].get(rest[:length], ())
                if length > len(rest) or len(known) > _MANY or any(one.startswith(rest) for one in known):
                    return True
        return False


def _common(known: str, text: str, place: int) -> int:
    """Return the number of characters of ``known`` that stand at ``place``."""
    low, high = 0, min(len(known), len(text) - place)
    while low < high:
        middle = (low + high + 1) // 2
        if text.startswith(known[:middle], place):
            low = middle
        else:
            high = middle - 1
    return low
