"""Texts that are to be found in others, each kept once, and found in one pass."""

from collections.abc import Iterator
from itertools import compress
from typing import Final

SHORTEST: Final = 4
"""Characters; what is shorter would be found everywhere."""
LONGEST_START: Final = 64
"""Characters of a long text that are enough to find it: as much of it goes as is there."""
_STARTS: Final = (4, 8, 16, 32, LONGEST_START)
_TRIES: Final = 1_024
"""Looks at what stands at a place that one text may take, beside one for each eight of its characters."""
_A_COMPARISON: Final = 16
"""Tries that it takes to see how much of a text is there."""
_MANY: Final = 64
"""Texts that are compared with at the end of what is searched, at one place."""

Span = tuple[int, int]


def folded(text: str) -> str:
    """``text`` as it is compared: without regard to capitals, and of the same length."""
    # The one letter that becomes two, and the one that depends on what stands around it.
    return text.replace("\u0130", "i").lower().replace("\u03c2", "\u03c3")


class Tries:
    """How much may be looked at for one text yet; beyond that all the rest of it counts as found."""

    __slots__ = ("left",)

    def __init__(self, length: int) -> None:
        self.left = _TRIES + length // 8


class Index:
    """The texts, by their first characters: 4 to 64, as many as a power of two not above their length.

    That leaves very few to compare with at any place. Where somebody has made it many, what is searched
    counts as found from there to its end.

    Adding and searching may go on in two threads: whatever was added before is found.
    """

    __slots__ = ("_by_start", "_characters", "_starts")

    def __init__(self) -> None:
        self._characters: list[bytearray] = []
        """Of the first four, for each: which characters there are, as a table for `bytes.translate`."""
        self._starts: dict[str, int] = {}
        """By the first 4 characters: the lengths of start, as bits, under which such texts are found."""
        self._by_start: dict[int, dict[str, list[str]]] = {}

    def add(self, text: str) -> None:
        """Have ``text``, which is folded and not too short, found from now on."""
        length = min(1 << len(text).bit_length() - 1, LONGEST_START)
        self._by_start.setdefault(length, {}).setdefault(text[:length], []).append(text)
        start = text[:SHORTEST]
        if start not in self._starts:
            self._characters = self._characters or [bytearray(256) for _ in range(SHORTEST)]
            for table, character in zip(self._characters, start.encode("latin-1", "replace"), strict=True):
                table[character] = 1
        self._starts[start] = self._starts.get(start, 0) | length

    def find(self, text: str, tries: Tries, *, cut: bool) -> Iterator[Span]:
        """Where the texts stand in ``text``, which is folded, one after another and not touching.

        Args:
            text: what is searched.
            tries: how much may be looked at; used up.
            cut: whether one of them may stand at the end without its own end.
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
        """Where in ``text`` the first characters of any of them stand."""
        starts = self._starts
        data = text.encode("latin-1", "replace")
        count = len(data) - SHORTEST + 1
        if not starts or count <= 0:
            return []
        # Numbers of a byte for each place: a loop over the places would take twenty times as long.
        may_be = -1
        for index, table in enumerate(self._characters):
            may_be &= int.from_bytes(data[index : index + count].translate(table), "little")
        likely = compress(range(count), may_be.to_bytes(count, "little"))
        return [at for at in likely if text[at : at + SHORTEST] in starts]

    def _longest(self, text: str, place: int, tries: Tries) -> int:
        """Where the longest of them ends that stands there; 0 if there is none."""
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
        """Whether the rest of ``text`` may be the beginning of one of them."""
        rest = text[place : place + LONGEST_START]
        if place + len(rest) < len(text):
            # What is longer was looked for already.
            return False
        lengths = self._starts[rest[:SHORTEST]]
        for length in _STARTS:
            if lengths & length:
                known = self._by_start[length].get(rest[:length], ())
                if length > len(rest) or len(known) > _MANY or any(one.startswith(rest) for one in known):
                    return True
        return False


def _common(known: str, text: str, place: int) -> int:
    """How many characters of ``known`` stand at ``place``."""
    low, high = 0, min(len(known), len(text) - place)
    while low < high:
        middle = (low + high + 1) // 2
        if text.startswith(known[:middle], place):
            low = middle
        else:
            high = middle - 1
    return low
