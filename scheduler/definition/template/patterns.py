"""Patterns with ``*`` and ``?``, matched so that no text and no pattern makes it slow."""


class Pattern:
    """A pattern with ``*`` for any characters and ``?`` for one, matched in linear time.

    All ways to match are followed at once: bit ``i`` of the state says that the first ``i`` parts of the
    pattern match the text so far. There is nothing to go back to, so no text makes it slow.
    """

    __slots__ = ("_any", "_end", "_loops", "_masks", "cost", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._masks: dict[str, int] = {}
        self._any = 0
        self._loops = 0
        bit = 1
        characters = iter(text)
        for character in characters:
            if character == "*":
                self._loops |= bit
                continue
            if character == "?":
                self._any |= bit
            else:
                literal = next(characters, "\\") if character == "\\" else character
                self._masks[literal] = self._masks.get(literal, 0) | bit
            bit <<= 1
        self._end = bit
        self.cost = 8 + bit.bit_length() // 64
        """Units of work for each character of a text."""

    def matches(self, text: str) -> bool:
        """Whether the whole of ``text`` matches."""
        state = 1
        masks, wild, loops = self._masks, self._any, self._loops
        for character in text:
            state = (state & (masks.get(character, 0) | wild)) << 1 | state & loops
            if not state:
                return False
        return bool(state & self._end)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)
