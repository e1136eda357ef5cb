import tracemalloc
from collections.abc import Awaitable, Callable
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


async def _turns(work: Callable[[], Awaitable[object]]) -> int:
    """How often another task had its turn while ``work`` ran."""
    turns = 0

    async def count(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        nonlocal turns
        task_status.started()
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        await nursery.start(count)
        await work()
        nursery.cancel_scope.cancel()
    return turns


async def test_leaves_the_loop_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others get their turn every few elements, if those took long, while a build is written and read."""
    monkeypatch.setattr(slices, "SLICE", 0.0)
    document = {"id": "b", "mapping": {"id": "b", "changes": LONG}}
    encoded = msgspec.json.encode(document["mapping"])
    slices_of_it = len(LONG) // slices.BATCH
    assert await _turns(lambda: slices.encode(document)) >= slices_of_it
    assert await _turns(lambda: slices.document(slices.members(encoded))) >= slices_of_it


async def test_what_is_quick_is_not_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a slice no other task gets a turn: a checkpoint costs more than many elements."""
    monkeypatch.setattr(slices, "SLICE", 1_000.0)
    assert await _turns(lambda: slices.encode({"id": "b", "changes": LONG})) <= 2


async def test_parts_that_are_json_already_are_copied() -> None:
    """What the plan hands over as text stands in the document as it is."""
    raw = [msgspec.Raw(b'{"n":1.0}')] * 500
    assert await slices.encode({"changes": raw}) == b'{"changes":[' + b",".join([b'{"n":1.0}'] * 500) + b"]}"


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
    with pytest.raises(ValueError, match="not UTF-8: byte 0xff"):
        await slices.document(slices.members(data))


async def test_what_is_too_much_is_counted_and_not_kept() -> None:
    """A report of hundreds of megabytes that no message holds takes no memory."""
    chunk = b"x" * 1_000_000
    tracemalloc.start()
    try:
        found = await slices.gathered_up_to((bytes(chunk) + b"y" for _ in range(50)), 2_500_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == (None, 50 * 1_000_001)
    assert peak < 6_000_000
    assert await slices.gathered_up_to([b"a", b"bc"], 3) == (b"abc", 3)
