"""Strict reading: decodes JSON into the one form that it must have, and says in words why it cannot."""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from scheduler.definition.strictjson import Raw, refusal
from scheduler.errors import BeyondThisVersion, UnreadableLog

T = TypeVar("T")

_REFUSALS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_LONGEST_NAME = 64

_decode_any = msgspec.json.Decoder().decode


def read(
    decode: Callable[[bytes | Raw], T], data: bytes | Raw, place: str, unknown: Callable[[Any], str]
) -> T:
    """Decode ``data`` with a decoder of msgspec.

    Args:
        decode: the decoder; it must refuse unknown fields.
        data: JSON.
        place: name of the data, for the error.
        unknown: function that takes refused JSON, and names what another version may have put there; empty
            where the JSON is simply wrong.

    Raises:
        UnreadableLog: the decoder refuses the data.
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
    """Return the error for a log that is wrong."""
    return UnreadableLog(f"{text}; the build is left as it is")


def left_for_another(text: str) -> BeyondThisVersion:
    """Return the error for a log that is beyond this version."""
    return BeyondThisVersion(f"{text}; the build is left as it is for a version that knows it")


def shown(name: object) -> str:
    """Return a name from outside as it is shown in a message."""
    return repr(str(name)[:_LONGEST_NAME])


def strange_field(value: dict[str, Any], known: frozenset[str]) -> str:
    """Return the name of a field of ``value`` that is not in ``known``; empty where there is none."""
    return next((f"the field {shown(name)}" for name in value if name not in known), "")
