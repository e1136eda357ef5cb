"""What comes in over a connection is passed on as it came, with a bound on how far ahead it is read."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.bus.stream import _CALM, _LONGEST_LINE, _READ_AHEAD, _SIZES, ByteStream, _Protocol

_T = TypeVar("_T")
LITTLE, MORE, MUCH = _SIZES


def connected() -> tuple[ByteStream, _Protocol, Mock]:
    """A stream, what asyncio calls of it, and what it calls of asyncio."""
    stream, protocol, transport = ByteStream(), _Protocol(), Mock()
    protocol.connection_made(transport)
    stream._protocol = protocol
    return stream, protocol, transport


def run(main: Callable[[], Awaitable[_T]]) -> _T:
    async def in_time() -> _T:
        async with asyncio.timeout(10):
            return await main()

    return asyncio.run(in_time())


@pytest.mark.parametrize(
    ("came", "asked"),
    [
        ([10, LITTLE - 1], [LITTLE, LITTLE]),
        ([LITTLE, MORE, MUCH], [MORE, MUCH, MUCH]),
        ([LITTLE, MORE - 1], [MORE, MORE]),
        ([LITTLE, *[10] * _CALM], [MORE, *[MORE] * (_CALM - 1), LITTLE]),
        ([LITTLE, *[10] * (_CALM - 1), LITTLE, 10], [MORE] * (_CALM + 2)),
        ([LITTLE, MORE, *[LITTLE] * 2 * _CALM], [MORE, MUCH, *[MUCH] * (_CALM - 1), *[MORE] * (_CALM + 1)]),
        ([LITTLE, MORE, *[10] * 2 * _CALM], [MORE, MUCH, *[MUCH] * (_CALM - 1), *[MORE] * _CALM, LITTLE]),
    ],
)
def test_a_look_brings_as_much_as_seems_to_be_there(came: list[int], asked: list[int]) -> None:
    """Memory for much costs more than reading a message does."""

    async def main() -> list[int]:
        _, protocol, transport = connected()
        sizes = []
        for size in came:
            protocol.data_received(b"x" * size)
            sizes.append(transport.max_size)
        return sizes

    assert run(main) == asked


@given(st.lists(st.binary(min_size=1, max_size=5), max_size=8), st.integers(0, 8))
def test_what_comes_is_read_in_order_and_lines_before_what_follows_them(
    chunks: Sequence[bytes], lines: int
) -> None:
    async def main() -> tuple[list[bytes], bytes]:
        stream, protocol, _ = connected()
        for chunk in chunks:
            protocol.data_received(chunk)
        protocol.eof_received()
        first = [await stream.readline() for _ in range(lines)]
        rest = b""
        while not stream.at_eof():
            rest += await stream.read(1)
        assert await stream.read(1) == b""
        return first, rest

    first, rest = run(main)
    whole = b"".join(chunks)
    assert b"".join(first) + rest == whole
    assert all(line.find(b"\n") in {-1, len(line) - 1} for line in first)
    assert all(line.endswith(b"\n") for line in first if line) or not rest


def test_a_line_without_an_end_is_not_kept_for_ever() -> None:
    async def main() -> None:
        stream, protocol, _ = connected()
        protocol.data_received(b"x" * (_LONGEST_LINE + 1))
        with pytest.raises(OSError, match="a line of more than"):
            await stream.readline()

    run(main)


def test_a_reader_is_woken_by_what_comes_and_by_the_end() -> None:
    async def main() -> list[bytes]:
        stream, protocol, _ = connected()
        loop, found = asyncio.get_running_loop(), []
        loop.call_soon(protocol.data_received, b"a")
        found.append(await stream.read(1))
        loop.call_soon(protocol.eof_received)
        found.append(await stream.read(1))
        return found

    assert run(main) == [b"a", b""]


def test_nothing_is_read_while_too_much_waits() -> None:
    """And again once half of it was taken."""

    async def main() -> list[int]:
        stream, protocol, transport = connected()
        paused = []
        for _ in range(5):
            protocol.data_received(b"x" * (_READ_AHEAD // 4))
            paused.append(transport.pause_reading.call_count)
        while protocol.chunks:
            await stream.read(1)
            paused.append(transport.resume_reading.call_count)
        return paused

    assert run(main) == [0, 0, 0, 0, 1, 0, 0, 1, 1, 1]


def test_what_came_before_the_connection_was_lost_is_read_first() -> None:
    async def main() -> None:
        stream, protocol, _ = connected()
        protocol.data_received(b"a")
        protocol.connection_lost(ConnectionResetError("reset"))
        assert not stream.at_eof()
        assert await stream.read(1) == b"a"
        assert not stream.at_eof(), "the reason is to be heard"
        with pytest.raises(ConnectionResetError, match="reset"):
            await stream.read(1)
        await stream.wait_closed()

    run(main)


def test_whoever_writes_waits_for_room_or_for_the_end() -> None:
    async def main() -> tuple[Any, ...]:
        stream, protocol, transport = connected()
        await stream.drain()
        protocol.pause_writing()
        waiting = [asyncio.ensure_future(stream.drain()) for _ in range(2)]
        await asyncio.sleep(0)
        # Who gives up keeps nobody else from going on.
        waiting[0].cancel()
        await asyncio.sleep(0)
        held = [one.done() for one in waiting]
        protocol.resume_writing()
        await waiting[1]
        protocol.pause_writing()
        waiting.append(asyncio.ensure_future(stream.drain()))
        await asyncio.sleep(0)
        protocol.connection_lost(None)
        with pytest.raises(ConnectionResetError):
            await waiting[2]
        stream.abort()
        return held, transport.abort.call_count

    assert run(main) == ([True, False], 1)


class Notes:
    """A parser that handles whole words, one a turn; a word in capitals is left to the reader."""

    clean = True

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def feed(self, data: bytes, at: int) -> tuple[bytes, int, bool]:
        word, blank, _ = data[at:].partition(b" ")
        if word == b"broken":
            raise ValueError("broken")
        if word.isupper():
            return data, at, True
        self.seen.append(word)
        return data, at + len(word) + len(blank), False


def test_what_is_usual_is_passed_on_and_the_rest_left_to_who_reads() -> None:
    """Others have their turn in between; while the rest is not taken, what follows it waits."""

    async def main() -> tuple[list[bytes], list[bytes], int]:
        stream, protocol, _ = connected()
        notes = Notes()
        stream.pass_on(notes)
        read = []

        async def reader() -> None:
            while data := await stream.read(1):
                read.append(data)

        reading = asyncio.ensure_future(reader())
        await asyncio.sleep(0)
        protocol.data_received(b"a b ")
        protocol.data_received(b"c ")
        first = len(notes.seen)
        for _ in range(5):
            await asyncio.sleep(0)
        protocol.data_received(b"d E f ")
        for _ in range(5):
            await asyncio.sleep(0)
        protocol.data_received(b"g h ")
        for _ in range(5):
            await asyncio.sleep(0)
        protocol.eof_received()
        await reading
        return notes.seen, read, first

    seen, read, first = run(main)
    assert seen == [b"a", b"b", b"c", b"d", b"g", b"h"]
    assert read == [b"E f "]
    assert first == 1, "the others are not behind all of it"


def test_what_cannot_be_parsed_ends_the_reading() -> None:
    """The reader gets the reason."""

    async def main() -> None:
        stream, protocol, _ = connected()
        stream.pass_on(Notes())
        reading = asyncio.ensure_future(stream.read(1))
        await asyncio.sleep(0)
        protocol.data_received(b"a broken b ")
        with pytest.raises(ValueError, match="broken"):
            await reading

    run(main)


def test_once_it_was_given_up_nothing_is_passed_on() -> None:
    async def main() -> list[bytes]:
        stream, protocol, _ = connected()
        notes = Notes()
        stream.pass_on(notes)
        reading = asyncio.ensure_future(stream.read(1))
        await asyncio.sleep(0)
        protocol.data_received(b"a b c ")
        stream.abort()
        for _ in range(5):
            await asyncio.sleep(0)
        reading.cancel()
        return notes.seen

    assert run(main) == [b"a"]
