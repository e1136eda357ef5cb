"""Descriptions of malformed JSON, in words for the person who wrote it."""

import re
from typing import Final

_MARKS: Final = (
    # UTF-32 first: its mark begins with that of UTF-16.
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
    (b"\xef\xbb\xbf", "UTF-8"),
)
_WHITE: Final = b" \t\r\n"
_YAML: Final = re.compile(
    rb"""(?:[ \t]*(?:\#[^\n]*)?\r?\n)*+[ \t]*+
    ( --- | %YAML\b | -[ ] | ["']?[A-Za-z_][\w\ .-]*["']?[ ]*:(?:[ \t\r\n]|\Z) )""",
    re.VERBOSE,
)
_ESCAPE: Final = re.compile(
    rb"\\(?:u([dD][89abAB][0-9a-fA-F]{2})(\\u[dD][c-fC-F][0-9a-fA-F]{2})?|u([dD][c-fC-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_LONGEST_ESCAPE: Final = 12
"""Most bytes of a character that is written as two escapes."""
_LOOKED_AT: Final = 64 * 1024
"""Bytes at the beginning by which a language is recognised."""


def explain(data: bytes, problem: str, at: int | None, start: int = 0) -> str:
    """Return what is wrong with ``data``, with line and column, counted from 1 in characters.

    Args:
        data: a whole document.
        problem: the parser's message for it, or for a part of it.
        at: byte in that part that the message is about; None if unknown.
        start: byte of ``data`` at which the part begins.
    """
    if not data.strip(_WHITE):
        return "this is empty"
    for mark, name in _MARKS:
        if data.startswith(mark):
            return f"line 1, column 1: a byte order mark of {name}; save it as UTF-8 without one"
    if b"\x00" in data[:4] and data[:4].isascii():
        return "line 1, column 1: a zero byte, as in UTF-16 or UTF-32; save it as UTF-8"
    yaml = _YAML.match(data[:_LOOKED_AT])
    if yaml is not None:
        return f"{_place(data, yaml.start(1))}: this is YAML; convert it to JSON first"
    if at is None:
        return _explain_somewhere(data, problem, start)
    at += start
    half = _lone_surrogate(data, at)
    if half is not None:
        where, name = half
        return f"{_place(data, where)}: the lone surrogate \\u{name}, which is half of a character"
    found = data[at : at + 4].decode(errors="ignore")[:1]
    shown = f" {found!r}" if found and problem.endswith("invalid character") else ""
    return f"{_place(data, at)}: {problem}{shown}"


def looks_like_yaml(data: bytes) -> bool:
    """Tell whether ``data`` begins as YAML does, and no JSON."""
    return _YAML.match(data[:_LOOKED_AT].removeprefix(b"\xef\xbb\xbf")) is not None


def _explain_somewhere(data: bytes, problem: str, start: int) -> str:
    try:
        data[start:].decode()
    except UnicodeDecodeError as error:
        at = start + error.start
        return f"{_place(data, at)}: {_not_text(data[at : at + 3])}"
    if "truncated" not in problem:
        return problem
    return f"{_place(data, len(data.rstrip(_WHITE)))}: it ends here, in the middle"


def _not_text(found: bytes) -> str:
    if len(found) == 3 and found[0] == 0xED and 0xA0 <= found[1] <= 0xBF:
        half = 0xD000 | (found[1] & 0x3F) << 6 | (found[2] & 0x3F)
        return f"the lone surrogate U+{half:04X}, which is half of a character"
    return f"byte 0x{found[0]:02x}, which is not UTF-8"


def _lone_surrogate(data: bytes, at: int) -> tuple[int, str] | None:
    """Return the place and the digits of a lone half of an escaped pair near byte ``at``."""
    # No backslash stands before the string: after its quotation mark the text is read as the parser does.
    begin = data.rfind(b'"', 0, max(0, at - _LONGEST_ESCAPE)) + 1
    for found in _ESCAPE.finditer(data, begin, at + _LONGEST_ESCAPE):
        high, low, alone = found.groups()
        if (high is not None and low is None) or alone is not None:
            return found.start(), (high or alone).decode()
    return None


def _place(data: bytes, at: int) -> str:
    line = data.count(b"\n", 0, at) + 1
    before = data[data.rfind(b"\n", 0, at) + 1 : at].decode(errors="replace")
    return f"line {line:,}, column {len(before) + 1:,}"
