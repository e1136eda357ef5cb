"""Reads JSON into what it must be, and says in words why it cannot."""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from scheduler.definition.strictjson import Raw, refusal
from scheduler.errors import UnreadableLog

T = TypeVar("T")

_REFUSALS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_LONGEST_NAME = 64

_decode_any = msgspec.json.Decoder().decode


def read(
    decode: Callable[[bytes | Raw], T], data: bytes | Raw, place: str, unknown: Callable[[Any], str]
) -> T:
    """What ``decode``, a decoder of msgspec, makes of ``data``.

    Args:
        decode: the decoder; it must refuse fields that it does not know.
        data: JSON.
        place: what the data is, for the error.
        unknown: is given the JSON where it is refused, and names what in it another version may have put
            there; empty where it is simply wrong.

    Raises:
        UnreadableLog: it is not what the decoder wants.
    """
    try:
        return decode(data)
    except _REFUSALS as error:
        text = (
            "nested too deep" if isinstance(error, RecursionError) else refusal(error, data).replace("`", "")
        )
    try:
        name = unknown(_decode_any(data))
    except _REFUSALS:
        name = ""
    if name:
        raise left_for_another(f"{place}: {name} is not known here")
    raise left(f"{place}: {text}")


def left(text: str) -> UnreadableLog:
    """The error for a log that is wrong, to be raised."""
    return UnreadableLog(f"{text}; the build is left as it is")


def left_for_another(text: str) -> UnreadableLog:
    """The error for a log that is beyond this version, to be raised."""
    return UnreadableLog(f"{text}; the build is left as it is for a version that knows it")


def shown(name: object) -> str:
    """A name that came from outside, for a message."""
    return repr(str(name)[:_LONGEST_NAME])


def strange_field(value: dict[str, Any], known: frozenset[str]) -> str:
    """Names a field of ``value`` that is not one of ``known``; empty where all of them are."""
    return next((f"the field {shown(name)}" for name in value if name not in known), "")
