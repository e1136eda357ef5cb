"""Decodings: a text as it was before it was written into JSON, URLs, HTML, base64 or hex.

A secret is kept once, as it is, however many ways there are to write it. Each view of a text knows the way
back, so that a secret found in it can be taken out of the text itself.

Each view takes time in proportion to the text.
"""

import re
import string
import sys
from binascii import a2b_base64, unhexlify
from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Final, Protocol

_MOST_LEVELS: Final = 2
"""Levels of JSON within JSON that are unescaped."""

_ESCAPE = re.compile(
    r"""(\\(?: u[dD][89abAB][0-9a-fA-F]{2} \\u[dD][c-fC-F][0-9a-fA-F]{2}
    | u[0-9a-fA-F]{4} | x[0-9a-fA-F]{2} | U00(?:0[0-9a-fA-F]|10)[0-9a-fA-F]{4} | [\\"'/nrtbfv0] ))""",
    re.VERBOSE,
)
"""Escapes of JSON, Python, Go and JavaScript."""
_ESCAPED: Final = {
    "\\\\": "\\",
    '\\"': '"',
    "\\'": "'",
    "\\/": "/",
    "\\n": "\n",
    "\\r": "\r",
    "\\t": "\t",
    "\\b": "\b",
    "\\f": "\f",
    "\\v": "\v",
    "\\0": "\0",
}
_PERCENT = re.compile(
    r"(%(?:[0-7][0-9a-f]|[cd][0-9a-f]%[89ab][0-9a-f]|e[0-9a-f](?:%[89ab][0-9a-f]){2}|f[0-7](?:%[89ab][0-9a-f]){3}))",
    re.IGNORECASE,
)
"""Percent encodings, of one character each."""
_PERCENT_AND_PLUS = re.compile(rf"{_PERCENT.pattern[:-1]}|\+)", re.IGNORECASE)
_ENTITY = re.compile(r"(&(?:amp|lt|gt|quot|apos|#[0-9]{1,7}|#x[0-9a-fA-F]{1,6});)")
_ENTITIES: Final = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'"}
_LONG_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{8}")
_LONG_HEX = re.compile(r"[0-9a-fA-F]{8}")

_HEX_DIGITS: Final = b"0123456789abcdefABCDEF"
_BASE64_DIGITS: Final = (string.ascii_letters + string.digits + "+/").encode()
_HEX: Final = bytes(byte if byte in _HEX_DIGITS else ord("0") for byte in range(256))
_URL_SAFE: Final = {ord("-"): ord("+"), ord("_"): ord("/")}
_BASE64: Final = bytes(
    _URL_SAFE.get(byte, byte if byte in _BASE64_DIGITS else ord("A")) for byte in range(256)
)
"""Table of base64's digits; anything else counts as a digit, so that all keep their places."""


class EncodedView(Protocol):
    """A text, with the places of its characters in the text that it was made of."""

    text: str

    def place(self, begin: int, end: int) -> tuple[int, int]:
        """Return the place in the original of ``text[begin:end]``, which is not empty."""


class Plain:
    """A text as it is."""

    def __init__(self, text: str) -> None:
        self.text = text

    def place(self, begin: int, end: int) -> tuple[int, int]:
        """Return the place in the original, which is this text."""
        return begin, end


class _Unescaped:
    """A view in which some pieces of another one have become a character each.

    Args:
        of: the other view.
        pieces: its text, split: the parts between the pieces, and the pieces, in turn.
        meaning: function that returns the character for a piece.
    """

    def __init__(self, of: EncodedView, pieces: list[str], meaning: Callable[[str], str]) -> None:
        self._of = of
        self._lengths = list(map(len, pieces))
        known = {piece: meaning(piece) for piece in set(pieces[1::2])}
        pieces[1::2] = map(known.__getitem__, pieces[1::2])
        self.text = "".join(pieces)
        self._at: list[int] = []
        """Places of those characters here, once anything was found."""
        self._begins: list[int] = []

    def place(self, begin: int, end: int) -> tuple[int, int]:
        """Return the place in the original (see `EncodedView`)."""
        if not self._at:
            self._begins = list(accumulate(self._lengths, initial=0))[1::2]
            between = accumulate(self._lengths[::2])
            self._at = [
                index + length for index, length in zip(range(len(self._begins)), between, strict=False)
            ]
        return self._of.place(self._piece(begin)[0], self._piece(end - 1)[1])

    def _piece(self, at: int) -> tuple[int, int]:
        index = bisect_right(self._at, at) - 1
        if index < 0:
            return at, at + 1
        begin = self._begins[index]
        end = begin + self._lengths[2 * index + 1]
        if self._at[index] == at:
            return begin, end
        begin = end + at - self._at[index] - 1
        return begin, begin + 1


class _Bytes:
    """The bytes for the digits of a view, read from ``offset`` on, a character each."""

    def __init__(self, of: EncodedView, offset: int, data: bytes, characters: int, size: int) -> None:
        self.text = data.decode("latin-1")
        self._of = of
        self._offset = offset
        self._characters = characters
        self._size = size
        """Bytes for which ``characters`` digits stand."""

    def place(self, begin: int, end: int) -> tuple[int, int]:
        """Return the place in the original (see `EncodedView`)."""
        first = self._offset + begin * self._characters // self._size
        last = self._offset - (-end * self._characters // self._size)
        return self._of.place(first, last)


def views(text: str) -> Iterator[EncodedView]:
    """Yield ``text`` in all the ways in which it can be read, first as it is."""
    plain: EncodedView = Plain(text)
    yield plain
    levels = [plain]
    while len(levels) <= _MOST_LEVELS and "\\" in levels[-1].text:
        pieces = _ESCAPE.split(levels[-1].text)
        if len(pieces) == 1:
            break
        levels.append(_Unescaped(levels[-1], pieces, _unescaped))
        yield levels[-1]
    for mark, pattern, meaning in (
        ("%", _PERCENT, _percent),
        ("+", _PERCENT_AND_PLUS, _percent),
        ("&", _ENTITY, _entity),
    ):
        if mark in text and len(pieces := pattern.split(text)) > 1:
            yield _Unescaped(plain, pieces, meaning)
    # `/`, one of base64's digits, may be escaped in JSON.
    yield from _bytes(levels[1] if len(levels) > 1 else plain)


def _bytes(view: EncodedView) -> Iterator[EncodedView]:
    """Yield the content of base64, begun at any of its four characters, and of hex."""
    if _LONG_BASE64.search(view.text) is None:
        return
    data = view.text.encode("ascii", "replace")
    base64 = data.translate(_BASE64)
    for offset in range(min(4, len(data))):
        whole = (len(data) - offset) // 4 * 4
        yield _Bytes(view, offset, a2b_base64(base64[offset : offset + whole]), 4, 3)
    if _LONG_HEX.search(view.text) is not None:
        digits = data.translate(_HEX)
        for offset in range(2):
            whole = (len(data) - offset) // 2 * 2
            yield _Bytes(view, offset, unhexlify(digits[offset : offset + whole]), 2, 1)


def _unescaped(piece: str) -> str:
    found = _ESCAPED.get(piece)
    if found is not None:
        return found
    if len(piece) == 12:
        # Beyond the first 65,536 characters JSON has two halves for one.
        high, low = int(piece[2:6], 16), int(piece[8:], 16)
        return chr(0x10000 + (high - 0xD800 << 10) + low - 0xDC00)
    digits = piece[2:]
    return chr(int(digits, 16))


def _percent(piece: str) -> str:
    if piece == "+":
        return " "
    try:
        return unhexlify(piece.replace("%", "")).decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        # No character is written like this (too long, say): a substitute keeps the places.
        return "\ufffd"


def _entity(piece: str) -> str:
    found = _ENTITIES.get(piece)
    if found is not None:
        return found
    code = int(piece[3:-1], 16) if piece[2] in "xX" else int(piece[2:-1])
    return chr(code) if code <= sys.maxunicode else "\ufffd"
