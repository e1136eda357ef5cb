"""JSON of large documents, a slice at a time, so that the loop stays responsive.

One msgspec call holds the interpreter from beginning to end: a build of 5 MB takes 7-11 ms to write and 24-55
ms to read, in a worker thread as well, where it stalls the loop all the same. So the lists near the top,
where the size of a build is, are written and read a few elements at a time, with a checkpoint after every
`SLICE`.
"""

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

import msgspec
import trio

from scheduler.definition.strictjson import refusal
from scheduler.runtime.executor import ThreadExecutor

T = TypeVar("T")

SLICE = 0.002
"""Seconds of work between two checkpoints."""

BATCH = 16
"""Elements of a list between two looks at the clock."""

WHOLE = 128 * 1024
"""Bytes that are read in one go: well under a millisecond."""

_GATHERED_AT_ONCE = 512 * 1024
"""Bytes of chunks that are made between two checkpoints: a millisecond or two."""
_PER_CHUNK = 4 * 1024
"""Bytes that a chunk counts for beside its own."""
_JOINED_HERE = 2 * 1024 * 1024
"""Bytes that are joined on the spot: half a millisecond."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode


class _Slicer:
    """Yields to other tasks after every slice."""

    def __init__(self) -> None:
        self._end = time.perf_counter() + SLICE

    async def breathe(self) -> None:
        if time.perf_counter() >= self._end:
            await trio.lowlevel.checkpoint()
            self._end = time.perf_counter() + SLICE


async def encode(content: Mapping[str, Any]) -> bytes:
    """Return ``content`` as compact JSON, its keys in their order.

    All of it must be plain dicts and lists, and must not change meanwhile. Unless it, or an object in it,
    contains a long list, this is one plain call.
    """
    if not _large(content, levels=2):
        return _encode(content)
    pieces: list[bytes] = []
    await _encode_sliced(content, pieces, _Slicer())
    return b"".join(pieces)


async def gathered(chunks: Iterable[bytes]) -> bytes:
    """Return ``chunks``, made one after another, joined; other tasks run between them."""
    whole, _ = await gathered_up_to(chunks, sys.maxsize)
    assert whole is not None
    return whole


async def gathered_up_to(chunks: Iterable[bytes], most: int) -> tuple[bytes | None, int]:
    """Return ``chunks`` joined and their size; None in place of the bytes if they exceed ``most``."""
    pieces: list[bytes] = []
    size = since = 0
    for chunk in chunks:
        size += len(chunk)
        if size <= most:
            pieces.append(chunk)
        else:
            # The rest may be ten times as much.
            pieces.clear()
        since += _PER_CHUNK + len(chunk)
        if since > _GATHERED_AT_ONCE:
            since = 0
            await trio.lowlevel.checkpoint()
    if size > most:
        return None, size
    if size < _JOINED_HERE:
        return b"".join(pieces), size
    # From a megabyte on the join releases the interpreter's lock meanwhile.
    return await ThreadExecutor().run("joined", partial(b"".join, pieces)), size


async def _encode_sliced(content: Mapping[str, Any], pieces: list[bytes], slicer: _Slicer) -> None:
    """Append ``content`` to ``pieces``, to be joined only once: copying megabytes is a stall as well."""
    before = b"{"
    for key, member in content.items():
        pieces += before, _encode(key), b":"
        before = b","
        if _long(member):
            mark = b"["
            for start in range(0, len(member), BATCH):
                pieces += mark, _encode(member[start : start + BATCH])[1:-1]
                mark = b","
                await slicer.breathe()
            pieces.append(b"]")
        elif isinstance(member, Mapping) and _large(member, levels=1):
            await _encode_sliced(member, pieces, slicer)
        else:
            pieces.append(_encode(member))
            await slicer.breathe()
    pieces.append(b"}")


def _long(member: Any) -> bool:
    return isinstance(member, list | tuple) and len(member) > BATCH


def _large(content: Mapping[str, Any], *, levels: int) -> bool:
    """Whether there is a long list in ``content``, at most so many levels down."""
    for member in content.values():
        if _long(member):
            return True
        if levels > 1 and isinstance(member, Mapping) and _large(member, levels=levels - 1):
            return True
    return False


def members(data: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    """Return the members of the JSON object in ``data``, values unread; of equal keys the last.

    Raises:
        ValueError: it is not JSON, not an object, or nested too deep.
    """
    return _translated(_decode_members, data)


def elements(data: bytes | msgspec.Raw) -> list[msgspec.Raw]:
    """Return the elements of the JSON list in ``data``, unread.

    Raises:
        ValueError: it is not JSON, not a list, or nested too deep.
    """
    return _translated(_decode_elements, data)


def value(raw: msgspec.Raw) -> Any:
    """Return one value, strictly read in one go.

    Raises:
        ValueError: it is not JSON or nested too deep.
    """
    return _translated(_decode, raw)


async def document(heads: Mapping[str, msgspec.Raw]) -> dict[str, Any]:
    """Return the object whose `members` are ``heads``, strictly read.

    Raises:
        ValueError: a value is not JSON or nested too deep.
    """
    await trio.lowlevel.checkpoint()  # taking it apart was a slice of its own
    slicer = _Slicer()
    read: dict[str, Any] = {}
    for key, raw in heads.items():
        view = memoryview(raw)
        if len(view) > WHOLE and view[0] == ord("["):
            entries = []
            for element in elements(raw):
                entries.append(value(element))
                await slicer.breathe()
            read[key] = entries
        else:
            read[key] = value(raw)
        await slicer.breathe()
    return read


def _translated(decode: Callable[[bytes | msgspec.Raw], T], data: bytes | msgspec.Raw) -> T:
    """Decode ``data``; every refusal by msgspec becomes a ValueError."""
    try:
        return decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(refusal(error, data)) from error
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
