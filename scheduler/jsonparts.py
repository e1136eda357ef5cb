"""JSON text in parts: how large a value would be, why it cannot be written, and as what text it stands.

What is rendered is written by msgspec, which keeps every digit of an integer. The bounds are those of the
sandbox (FACTS: "Jinja2"): 64 KiB a rendered string, 1 MiB a rendered component.
"""

import math
from decimal import Decimal
from typing import Any

import msgspec

from scheduler.errors import TemplateError

MAX_STRING = 64 * 1024
"""Bytes of UTF-8 in one rendered string."""
MAX_RENDERED = 1024 * 1024
"""Bytes of JSON in one rendered component, and so in any value that goes into one."""
MAX_DEPTH = 64
"""Levels of nesting in a rendered value: what the other side accepts (WIRE: "Limits")."""

# A character takes at most four bytes of UTF-8, so text this short needs no counting.
_SURELY_FITS = MAX_STRING // 4
_encode = msgspec.json.Encoder().encode


def encode(value: object) -> bytes:
    """The JSON of ``value``.

    Raises:
        TemplateError: It cannot be written as JSON (a lone surrogate).
    """
    try:
        return _encode(value)
    except UnicodeEncodeError as error:
        raise TemplateError(unwritable(error)) from error


def unwritable(error: UnicodeEncodeError) -> str:
    """What is wrong with text that has no UTF-8."""
    return f"holds the lone surrogate \\u{ord(error.object[error.start]):04x}, which is not valid text"


def bounded(text: str) -> str:
    """``text`` itself, if it is not over the bound of a rendered string.

    Raises:
        TemplateError: It is; the message names the limit.
    """
    if len(text) > _SURELY_FITS:
        size = len(text) if len(text) > MAX_STRING else len(text.encode("utf-8", "surrogatepass"))
        if size > MAX_STRING:
            raise TemplateError(
                f"would be {size} bytes of text; the limit of a rendered string is {MAX_STRING}"
            )
    return text


def measure(value: object, max_digits: int, limit: int = MAX_RENDERED, depth: int = 0) -> int:
    """About how many bytes of JSON ``value`` takes: never more than it really does.

    The work is bounded by ``limit`` and not by the value: lists that hold one another many times over
    would take for ever to write, while they take no memory.

    Args:
        value: What an expression made: JSON, or something that cannot be written as JSON.
        max_digits: The most digits of an integer (`limits.Limits.max_digits`).
        limit: Bytes from which on it is too large.
        depth: Levels of nesting above it.

    Raises:
        TemplateError: It is larger than ``limit``, or it cannot be written as JSON.
    """
    match value:
        case str():
            size = len(bounded(value)) + 2
        case None | bool():
            size = 4
        case int():
            size = value.bit_length() * 3 // 10 + 1
            if size > max_digits:
                raise TemplateError(f"is an integer of about {size} digits; max_digits is {max_digits}")
        case float():
            if not math.isfinite(value):
                raise TemplateError(f"is {value}, which JSON cannot say")
            size = 3
        case dict() | list() | tuple():
            size = _measure_all(value, max_digits, limit, depth + 1)
        case _:
            raise TemplateError(f"is of type {type(value).__name__}, which JSON cannot say")
    if size > limit:
        raise TemplateError(f"holds more than {MAX_RENDERED} bytes, the limit of a rendered component")
    return size


def _measure_all(
    value: dict[Any, Any] | list[Any] | tuple[Any, ...], max_digits: int, limit: int, depth: int
) -> int:
    if depth > MAX_DEPTH:
        raise TemplateError(f"is nested more than {MAX_DEPTH} deep")
    size = 2 + len(value)
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TemplateError(f"has a key of type {type(key).__name__}; keys are text")
            size += len(key) + 3 + measure(item, max_digits, limit - size, depth)
    else:
        for item in value:
            size += measure(item, max_digits, limit - size, depth)
    return size


def text_of(value: object) -> str:
    """``value`` within text, for expressions: itself if it is text, otherwise its JSON."""
    return value if isinstance(value, str) else encode(value).decode()


def gjson_text(value: object) -> str:
    """``value`` as text the way gjson's ``String()`` gives it (WIRE: "References").

    Numbers are in positional notation without a superfluous fraction: ``1.0`` is ``1``. Integers keep all
    their digits, where gjson rounds them to 53 bits.
    """
    if isinstance(value, float):
        text = format(Decimal(repr(value)), "f")
        return text.removesuffix(".0")
    return text_of(value)
