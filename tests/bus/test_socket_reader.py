"""A socket is read in a task of Trio's, a look at a time."""

import gc
import socket
import sys
import weakref
from collections.abc import Iterator
from itertools import pairwise

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from scheduler.bus.socket_reader import SocketReader


class Notes:
    """A receiver that writes down what it is told."""

    def __init__(self, most: int = 4) -> None:
        self.most = most
        self.told: list[object] = []
        self.reader: SocketReader | None = None
        """Reader that is paused with each look, if there is one."""

    def data_received(self, data: bytes) -> None:
        self.told.append(data)
        if self.reader is not None:
            self.reader.pause_reading()

    def eof_received(self) -> None:
        self.told.append("eof")

    def end(self, error: Exception | None) -> None:
        self.told.append(error)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a connection."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


async def test_bytes_come_in_order_a_look_at_a_time_until_the_end(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = ends
    notes = Notes(most=4)
    theirs.sendall(b"abcdefg")
    theirs.close()
    await SocketReader(ours, notes).run()
    assert notes.told == [b"abcd", b"efg", "eof"]
    assert ours.fileno() == -1, "the socket was closed"


async def test_others_have_a_turn_between_two_looks(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    notes = Notes(most=1)
    theirs.sendall(b"x" * 20)
    looks = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(SocketReader(ours, notes).run)
        while len(notes.told) < 20:
            await trio.lowlevel.checkpoint()
            looks.append(len(notes.told))
        nursery.cancel_scope.cancel()
    # Of two tasks that are ready in one turn, either may be first.
    assert max(after - before for before, after in pairwise([0, *looks])) <= 2


async def test_nothing_is_read_while_it_is_paused(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    notes = Notes(most=1)
    reader = notes.reader = SocketReader(ours, notes)
    theirs.sendall(b"abc")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.run)
        for count in (1, 2, 3):
            await wait_all_tasks_blocked(0.01)
            assert len(notes.told) == count
            reader.resume_reading()
        nursery.cancel_scope.cancel()
    assert notes.told == [b"a", b"b", b"c"]


@pytest.mark.skipif(sys.platform != "linux", reason="a socket option decides how the peer leaves")
async def test_a_connection_that_is_cut_is_told_with_the_reason() -> None:
    """And nothing keeps the receiver alive for that."""
    listener = socket.create_server(("127.0.0.1", 0))
    theirs = socket.create_connection(listener.getsockname())
    ours, _ = listener.accept()
    listener.close()
    ours.setblocking(False)
    # Closed like this, it sends a reset.
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    theirs.close()
    notes = Notes()
    gc.disable()
    try:
        await SocketReader(ours, notes).run()
        [error] = notes.told
        assert isinstance(error, ConnectionResetError)
        gone = weakref.ref(notes)
        del notes
        assert gone() is None, "the error refers to nobody"
    finally:
        gc.enable()


async def test_a_reader_that_is_cancelled_closes_its_socket(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = ends
    with trio.move_on_after(0.01):
        await SocketReader(ours, Notes()).run()
    assert ours.fileno() == -1
    assert theirs.recv(1) == b"", "the other side sees the end"
