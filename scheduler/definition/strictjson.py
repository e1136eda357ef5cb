"""Strict JSON, in and out.

msgspec refuses everything that the grammar refuses (NaN, lone surrogates, control characters), and keeps
every digit of an integer, where other fast libraries round beyond 64 bits. The bounds that it leaves open are
set here: the depth of nesting, and the length of an integer (WIRE: "Limits").
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from attrs import evolve

from scheduler.definition.limits import DEFAULT_LIMITS, Limits
from scheduler.errors import InvalidJSON, OverLimit
from scheduler.runtime.yielding import yield_now

_OWN = evolve(DEFAULT_LIMITS, max_depth=1_000)
"""Limits of what can be decoded at all."""
Raw = msgspec.Raw
"""A piece of JSON text that is not decoded yet."""

_decode = msgspec.json.Decoder().decode
_decode_raw_object = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_raw_list = msgspec.json.Decoder(list[Raw]).decode

encode = msgspec.json.Encoder().encode
"""Encode a value as compact JSON bytes."""
encode_sorted = msgspec.json.Encoder(order="sorted").encode
"""Encode a value as compact JSON bytes with sorted keys: equal content gives equal bytes."""

_BETWEEN_BREATHS = 1_000
"""Values that are looked at in the time of a component."""
_PIECE = 128 * 1024
"""Bytes of a list that are written at a time, roughly: a fraction of a millisecond."""


_PACKED = 16 * 1024
"""Bytes from which packing a list or an object is worth while."""


def decode(data: bytes | Raw, limits: Limits = DEFAULT_LIMITS, *, level: int = 0) -> Any:
    """Decode strict JSON; ``level`` is the depth of ``data`` in a larger document.

    Raises:
        InvalidJSON: with the mistake, and its byte where that is known.
    """
    try:
        value = _decode(data)
    except _REFUSALS as error:
        raise _refused(error, data, limits) from None
    _check_bounds(data if type(data) is bytes else bytes(data), value, limits, level)
    return value


def decode_in_pieces(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Any:
    """Decode large JSON in a thread, in pieces: every few milliseconds other threads get the interpreter.

    Raises:
        InvalidJSON: as for `decode`.
    """
    value = _in_pieces(data, limits, 0)
    _check_bounds(data, value, limits, 0)
    return value


def decode_own(data: bytes) -> Any:
    """Decode JSON that this program has written or checked before, in pieces if it is large."""
    return _in_pieces(data, _OWN, 0)


def _in_pieces(data: bytes | Raw, limits: Limits, level: int) -> Any:
    view = memoryview(data)
    if len(view) <= _PIECE:
        return _call(_decode, data, limits)
    if level > limits.max_depth:
        raise OverLimit(f"nested deeper than max_depth {limits.max_depth}")
    first = bytes(view[:64]).lstrip()[:1]
    if first == b"{":
        members: dict[str, Raw] = _call(_decode_raw_object, data, limits)
        return {key: _in_pieces(raw, limits, level + 1) for key, raw in members.items()}
    if first != b"[":
        return _call(_decode, data, limits)
    elements: list[Raw] = _call(_decode_raw_list, data, limits)
    values: list[Any] = []
    some: list[Raw] = []
    size = 0
    for raw in elements:
        length = len(memoryview(raw))
        if length > _PIECE:
            values += _decoded(some, limits)
            some, size = [], 0
            values.append(_in_pieces(raw, limits, level + 1))
            continue
        some.append(raw)
        size += length
        if size > _PIECE:
            values += _decoded(some, limits)
            some, size = [], 0
    return values + _decoded(some, limits)


def _decoded(elements: list[Raw], limits: Limits) -> list[Any]:
    yield_now()
    found: list[Any] = _call(_decode, b"[" + b",".join(elements) + b"]", limits)
    return found


def split_object(data: bytes, limits: Limits = DEFAULT_LIMITS) -> dict[str, Raw]:
    """Return the members of an object, their values not yet decoded.

    Raises:
        InvalidJSON: it is not JSON, or not an object.
    """
    members: dict[str, Raw] = _call(_decode_raw_object, data, limits)
    return members


def split_list(data: Raw, limits: Limits = DEFAULT_LIMITS) -> list[Raw]:
    """Return the elements of a list, not yet decoded.

    Raises:
        InvalidJSON: it is not a list.
    """
    elements: list[Raw] = _call(_decode_raw_list, data, limits)
    return elements


def list_chunks(items: Sequence[Any], convert: Callable[[Any], Any] | None = None) -> Iterator[bytes]:
    """Yield the JSON of a list in pieces, without its brackets, each written within about a millisecond.

    Args:
        items: the elements.
        convert: function that returns what is written for an element; None: the element itself.
    """
    # One by one until their size is known.
    start, number = 0, 1
    while start < len(items):
        yield_now()
        if number == 1:
            # It may be megabytes: it must not be copied.
            text = encode(items[start] if convert is None else convert(items[start]))
            if start:
                yield b","
            yield text
        else:
            part = items[start : start + number]
            text = encode(part if convert is None else [convert(item) for item in part])[1:-1]
            yield b"," + text if start else text
        start += number
        if len(text) > _PIECE:
            number = max(1, number * _PIECE // len(text))
        elif len(text) < _PIECE // 2:
            number *= 2


def packed(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document whose long lists and objects are JSON text again, each a `Raw`: for a thread.

    Decoded they may take twenty times the memory. `encode` writes both alike.
    """
    kept: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, dict | list):
            text = b"".join(_written(value))
            kept[key] = Raw(text) if len(text) > _PACKED else value
        else:
            kept[key] = value
    return kept


def packed_size(document: Mapping[str, Any]) -> int:
    """Return the bytes of packed JSON in a document; 0 where nothing is packed."""
    return sum(len(memoryview(value)) for value in document.values() if isinstance(value, Raw))


def unpacked(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document without packed parts."""
    return {
        key: decode_own(bytes(value)) if isinstance(value, Raw) else value for key, value in document.items()
    }


def _written(value: Any) -> Iterator[bytes]:
    """Yield the JSON of a value in pieces."""
    if isinstance(value, list):
        yield b"["
        yield from list_chunks(value)
        yield b"]"
    elif isinstance(value, dict) and value:
        mark = b"{"
        for key, item in value.items():
            yield mark + encode(key) + b":"
            yield from _written(item)
            mark = b","
        yield b"}"
    else:
        yield encode(value)


def kind(value: object) -> str:
    """Return the name of a value's kind in JSON, with its article."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    names = {dict: "an object", list: "a list", str: "a string", int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__)


_REFUSALS = (RecursionError, UnicodeDecodeError, msgspec.DecodeError)
"""Errors of a decoder that mean that its text is none of ours."""


def _call(decoder: Any, data: bytes | Raw, limits: Limits) -> Any:
    try:
        return decoder(data)
    except _REFUSALS as error:
        raise _refused(error, data, limits) from None


def _refused(error: Exception, data: bytes | Raw, limits: Limits) -> InvalidJSON:
    """Return the error for one of `_REFUSALS`."""
    if isinstance(error, RecursionError):
        return OverLimit(f"nested deeper than max_depth {limits.max_depth}")
    if isinstance(error, UnicodeDecodeError):
        return InvalidJSON(not_text(error.object))
    text = str(error)
    if text.startswith(_NOT_TEXT):
        return InvalidJSON(not_text(data))
    if text.startswith("Integer value out of range"):
        return OverLimit(f"an integer of more digits than max_digits {limits.max_digits}")
    if text.startswith("Number out of range"):
        return OverLimit("a number beyond what a double holds")
    text = _readable(text)
    where = _BYTE.search(text)
    if where is None:
        return InvalidJSON(text)
    what = text[: where.start()].removeprefix(_MALFORMED)
    return InvalidJSON(text, what=what, at=int(where[1]))


_NOT_TEXT = "Invalid UTF-8"
"""Message of msgspec from 0.23 on, without a place; earlier versions raised UnicodeDecodeError."""


def refusal(error: Exception, data: bytes | Raw) -> str:
    """Return a decoder's complaint about ``data``, in the same words for all versions of msgspec."""
    text = str(error)
    return not_text(data) if isinstance(error, UnicodeDecodeError) or text.startswith(_NOT_TEXT) else text


def not_text(data: bytes | Raw) -> str:
    """Return what is wrong with ``data`` that is not UTF-8: the first unreadable byte, and the reason."""
    try:
        bytes(data).decode()
    except UnicodeDecodeError as error:
        return f"not UTF-8: byte 0x{error.object[error.start]:02x}, {error.reason}"
    return "not UTF-8"


_BYTE = re.compile(r" \(byte ([0-9]+)\)$")
_MALFORMED = "JSON is malformed: "


def _readable(text: str) -> str:
    text = text.partition(" - at `$")[0]
    return text.replace("`", "").replace("Expected", "expected").replace("array", "list")


_DIGITS = frozenset(b"0123456789")


@lru_cache(maxsize=8)
def _long_run(digits: int) -> re.Pattern[bytes]:
    return re.compile(rb"[0-9]{%d}" % (digits + 1))


def _check_bounds(data: bytes, value: Any, limits: Limits, level: int) -> None:
    # Most messages have fewer brackets than the depth allows, and no long run of digits: these two questions
    # decide, and cost far less than a walk through the value.
    # To find that there is no list takes a tenth of counting them.
    lists = data.count(b"[") if data.find(b"[") >= 0 else 0
    if data.count(b"{") + lists + level <= limits.max_depth:
        digits = limits.max_digits
        # Such a run holds one of every so many bytes: if none of those is a digit, there is no run.
        if _DIGITS.isdisjoint(data[digits :: digits + 1]) or _long_run(digits).search(data) is None:
            return
    beyond = 10**limits.max_digits
    layer = [value]
    while layer:
        inner: list[Any] = []
        containers = False
        for start in range(0, len(layer), _BETWEEN_BREATHS):
            yield_now()
            for item in layer[start : start + _BETWEEN_BREATHS]:
                if isinstance(item, dict):
                    containers = True
                    inner.extend(item.values())
                elif isinstance(item, list):
                    containers = True
                    inner.extend(item)
                elif type(item) is int and not -beyond < item < beyond:
                    msg = f"an integer of more digits than max_digits {limits.max_digits}"
                    raise OverLimit(msg)
        level += containers
        if level > limits.max_depth:
            msg = f"nested deeper than max_depth {limits.max_depth}"
            raise OverLimit(msg)
        layer = inner
