"""Parts of JSON text: the size of a value, the reason why it cannot be written, and its form as text.

msgspec writes rendered values, and keeps every digit of an integer. The limits are those of the sandbox: 64
KiB a rendered string, 1 MiB a rendered component.
"""

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec

from scheduler.definition.template.work import free
from scheduler.errors import TemplateError

MAX_STRING = 64 * 1024
"""Most bytes of UTF-8 in one rendered string."""
MAX_RENDERED = 1024 * 1024
"""Most bytes of JSON in one rendered component, and so in any value that goes into one."""
MAX_VALUES = 200_000
"""Most values that go into a rendered component: small ones take far more time than their bytes tell."""
WORK_PER_VALUE = 20
"""Bytes that could be written in the time of looking at one value, at least."""
MAX_DEPTH = 64
"""Most levels of nesting in a rendered value: the limit of the other side (WIRE: "Limits")."""

# A character takes at most four bytes of UTF-8, so text this short needs no counting.
_SURELY_FITS = MAX_STRING // 4
_encode = msgspec.json.Encoder().encode


def encode(value: object) -> bytes:
    """Return the JSON of ``value``.

    Raises:
        TemplateError: it cannot be written as JSON (a lone surrogate).
    """
    try:
        return _encode(value)
    except UnicodeEncodeError as error:
        raise TemplateError(unwritable(error)) from error


def unwritable(error: UnicodeEncodeError) -> str:
    """Return what is wrong with text that has no UTF-8."""
    return f"holds the lone surrogate \\u{ord(error.object[error.start]):04x}, which is not valid text"


def bounded(text: str) -> str:
    """Return ``text`` itself, if it is within the limit of a rendered string.

    Raises:
        TemplateError: it is not; the message names the limit.
    """
    if len(text) > _SURELY_FITS:
        size = len(text) if len(text) > MAX_STRING else len(text.encode("utf-8", "surrogatepass"))
        if size > MAX_STRING:
            raise TemplateError(
                f"would be {size} bytes of text; the limit of a rendered string is {MAX_STRING}"
            )
    return text


def measure(value: object, max_digits: int, spend: Callable[[int], None] = free) -> int:
    """Check a value made by an expression against every limit, and pay for that and for writing it.

    The work of this is limited whatever the value: lists that contain one another many times over would take
    for ever to write, although they take no memory.

    Args:
        value: JSON, or something that cannot be written as JSON.
        max_digits: most digits of an integer (`limits.Limits.max_digits`).
        spend: function that is called with the work, bit by bit.

    Returns:
        The units of work.

    Raises:
        TemplateError: the value is over a limit, or cannot be written as JSON.
    """
    meter = _Meter(max_digits, spend)
    try:
        meter.add(value, 1)
    finally:
        meter.pay()
    return meter.paid


class _Meter:
    __slots__ = ("max_digits", "paid", "size", "spend", "values")

    def __init__(self, max_digits: int, spend: Callable[[int], None]) -> None:
        self.max_digits = max_digits
        self.spend = spend
        self.paid = 0
        self.size = 0
        self.values = 0

    def pay(self) -> None:
        """Account for everything that was looked at since the last time."""
        due = self.size + WORK_PER_VALUE * self.values - self.paid
        self.paid += due
        self.spend(due)

    def add(self, value: object, depth: int) -> None:
        """Count ``value``, at no more than the size of its JSON."""
        self.values += 1
        if not self.values & 63:
            self.pay()
        if self.values > MAX_VALUES:
            raise TemplateError(f"holds more than {MAX_VALUES} values, the limit of a rendered component")
        match value:
            case str():
                self.grow(len(bounded(value)) + 2)
            case None | bool():
                self.grow(4)
            case int():
                digits = value.bit_length() * 3 // 10 + 1
                if digits > self.max_digits or (
                    digits > self.max_digits - 10 and abs(value) >= 10**self.max_digits
                ):
                    raise TemplateError(
                        f"is an integer of about {digits} digits; max_digits is {self.max_digits}"
                    )
                self.grow(digits)
            case float():
                if not math.isfinite(value):
                    raise TemplateError(f"is {value}, which JSON cannot say")
                self.grow(3)
            case dict() | list() | tuple():
                self.add_all(value, depth)
            case _:
                raise TemplateError(f"is of type {type(value).__name__}, which JSON cannot say")

    def add_all(self, value: dict[Any, Any] | list[Any] | tuple[Any, ...], depth: int) -> None:
        """Count the elements of ``value``, too."""
        if depth > MAX_DEPTH:
            raise TemplateError(f"is nested more than {MAX_DEPTH} deep")
        self.grow(1 + len(value))
        if isinstance(value, dict):
            for key, item in value.items():
                if not isinstance(key, str):
                    raise TemplateError(f"has a key of type {type(key).__name__}; keys are text")
                self.grow(len(key) + 3)
                self.add(item, depth + 1)
        else:
            for item in value:
                self.add(item, depth + 1)

    def grow(self, size: int) -> None:
        """Count ``size`` bytes."""
        self.size += size
        if self.size > MAX_RENDERED:
            raise TemplateError(f"holds more than {MAX_RENDERED} bytes, the limit of a rendered component")


def text_of(value: object) -> str:
    """Return ``value`` as part of a text, for expressions: text itself, anything else as JSON."""
    return value if isinstance(value, str) else encode(value).decode()


def gjson_text(value: object) -> str:
    """Return ``value`` as text in the form of gjson's ``String()`` (WIRE: "References").

    Numbers are in positional notation without a superfluous fraction: ``1.0`` is ``1``. Integers keep all
    their digits, where gjson rounds them to 53 bits.
    """
    if isinstance(value, float):
        text = format(Decimal(repr(value)), "f")
        return text.removesuffix(".0")
    return text_of(value)
