import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import trio

from scheduler.stores import slices

LONG = [{"_component_id": f"vpc::{n}", "n": 2**70 + n, "text": 'é"\n' * 20} for n in range(3000)]


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"id": "b", "x": None, "components": [], "edges": [1, "é", {"a": [1.5, True]}]},
        {"id": "b", "changes": LONG, "options": {"a": 1}, "components": LONG[:16], "edges": LONG[:17]},
        {"id": "b", "mapping": {"changes": LONG, "id": "b"}, "last": 1},
        {"id": "b", "mapping": {"few": [1], "deep": {"changes": LONG}}, "tuple": tuple(range(40))},
    ],
    ids=["empty", "small", "long lists", "one level down", "two levels down"],
)
async def test_encodes_the_same_bytes_as_in_one_go(document: dict[str, Any]) -> None:
    """Slicing changes nothing about what is written."""
    assert await slices.encode(document) == msgspec.json.encode(document)


async def test_reads_back_what_was_written() -> None:
    """A large document comes back as it was, with its large integers and its order."""
    document = {"id": "b", "changes": LONG, "z": {"k": LONG}, "a": 1}
    read = await slices.document(slices.members(msgspec.json.encode(document)))
    assert read == document
    assert list(read) == list(document)


async def _longest_stall(work: Callable[[], Any]) -> float:
    """How long, in seconds, another task waited at most for its turn while ``work`` ran."""
    longest = 0.0
    done = False

    async def watch(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        nonlocal longest
        task_status.started()
        while not done:
            before = time.perf_counter()
            await trio.lowlevel.checkpoint()
            longest = max(longest, time.perf_counter() - before)

    async with trio.open_nursery() as nursery:
        await nursery.start(watch)
        await work()
        done = True
    return longest


async def test_leaves_the_loop_free() -> None:
    """Others get their turn again and again while a build of many megabytes is written and read."""
    document = {"id": "b", "mapping": {"id": "b", "changes": LONG * 40}}

    encoded = msgspec.json.encode(document["mapping"])

    async def write() -> None:
        msgspec.json.encode(document)

    async def write_sliced() -> None:
        await slices.encode(document)

    async def read() -> None:
        msgspec.json.decode(encoded)

    async def read_sliced() -> None:
        await slices.document(slices.members(encoded))

    # In one go the whole of it is one stall; machines differ, so it is a ratio, of the best of three.
    assert len(encoded) > 10_000_000
    assert await _best(write_sliced) < 0.6 * await _best(write)
    assert await _best(read_sliced) < 0.6 * await _best(read)


async def _best(work: Callable[[], Any]) -> float:
    return min([await _longest_stall(work) for _ in range(3)])


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"nul", b'{"a":1}x', b'{"a":NaN}', b'{"a":"\xff"}', b'{"a":' + b"[" * 10_000, b"\x00"],
)
async def test_refuses_what_is_not_an_object(data: bytes) -> None:
    """Anything but a strict JSON object is a ValueError, nested depth included."""
    with pytest.raises(ValueError, match=r"."):
        await slices.document(slices.members(data))


async def test_refuses_bad_elements_of_a_long_list() -> None:
    """What is wrong deep in a large document is found as well."""
    data = b'{"changes":[' + b'"%b",' % (b"x" * 200_000) + b'{"a":"\xff"}]}'
    with pytest.raises(ValueError, match="utf-8"):
        await slices.document(slices.members(data))
