"""Scalars of YAML without quotes, by the core schema of YAML 1.2, as JSON.

What is no number, truth value or null is a text, dates and ``yes`` among them. Numbers that JSON does not
have are refused, and so are those with a zero in front: YAML would drop it, from the number of an account
say.
"""

import re
from typing import Final

from scheduler.definition.limits import Limits
from scheduler.definition.strictjson import encode
from scheduler.errors import InvalidYAML

_NUMBER: Final = re.compile(r"([-+]?)([0-9]*)(?:\.([0-9]*))?([eE][-+]?[0-9]+)?", re.ASCII)
_OTHER_BASE: Final = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_NOT_FINITE: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_LEADING_ZERO: Final = re.compile(r"[-+]?0[0-9]")
_BEGIN: Final = frozenset("-+.0123456789")
"""Characters that a number begins with."""
_WORDS: Final = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), ("null", b"null")),
    **dict.fromkeys(("true", "True", "TRUE"), ("bool", b"true")),
    **dict.fromkeys(("false", "False", "FALSE"), ("bool", b"false")),
}


def plain(text: str, line: int, limits: Limits) -> tuple[str, bytes]:
    """Return the kind of a scalar (``str``, ``int``, ``float``, ``bool``, ``null``) and its JSON.

    Args:
        text: the scalar.
        line: its line, for errors.
        limits: bounds: ``max_digits``.

    Raises:
        InvalidYAML: JSON has no such number, or it would be misread.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _BEGIN:
        return "str", encode(text)
    if _NOT_FINITE.fullmatch(text):
        raise InvalidYAML(f"{text} is no number that JSON has: quote it if it is a text", line)
    if _OTHER_BASE.fullmatch(text):
        if len(text) > limits.max_digits:
            raise InvalidYAML(f"an integer of more digits than max_digits {limits.max_digits}", line)
        return "int", str(int(text, 0)).encode()
    found = _NUMBER.fullmatch(text)
    if found is None or not (found[2] or found[3]):
        return "str", encode(text)
    if _LEADING_ZERO.match(text):
        # Not the number itself: it may be a secret.
        cure = "quote it if it is a text, or leave the zero out"
        raise InvalidYAML(f"a number begins with a zero: {cure}", line)
    sign, whole, rest, exponent = found.groups()
    written = f"{sign.strip('+')}{whole or 0}{'' if rest is None else f'.{rest or 0}'}{exponent or ''}"
    return "int" if rest is None and exponent is None else "float", written.encode()
