"""A TCP proxy in front of a broker, that can be a bad network: in a thread of its own, on Trio.

Two ways lead through it, ``up`` from clients to the broker and ``down`` back, and each is told how to be: to
pass, to be slow, to hold everything back (a blackhole: TCP would deliver it later), or to swallow it (TCP
believes it delivered). Connections can be cut at once or in the middle of a message.
"""

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Any, Self, TypeVar

import trio
from attrs import define, evolve, field, frozen

T = TypeVar("T")

_CHUNK = 65_536
_AHEAD = 64
"""Chunks that are read ahead of what was passed on: then the sender feels it, as in a network."""


class Way(Enum):
    """One of the two directions."""

    UP = "up"
    DOWN = "down"


BOTH = (Way.UP, Way.DOWN)


class Mood(Enum):
    """What becomes of the bytes of a way."""

    PASS = "pass"
    HOLD = "hold"
    SWALLOW = "swallow"


@frozen
class _State:
    mood: Mood = Mood.PASS
    delay: float = 0.0
    allowance: int | None = None
    """Bytes after which the connection that carries them is cut."""


@define(eq=False)
class _Link:
    """One client's connection, and ours to the broker."""

    client: trio.SocketStream
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    torn: bool = False
    """Something was swallowed: what follows would make no sense."""
    reset: bool = False

    def cut(self) -> None:
        """End it without another word; what stands in buffers is lost."""
        self.reset = True
        self.scope.cancel()


class Proxy:
    """Listens on a free port of its own and leads to another port, both on loopback.

    Use it as a context; its methods may be called from any thread and have happened on return.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.accepted = 0
        """How many connections there were."""
        self.carried = dict.fromkeys(Way, 0)
        """Bytes passed on so far."""
        self._states = dict.fromkeys(Way, _State())
        self._links: set[_Link] = set()
        self._token: trio.lowlevel.TrioToken
        self._scope = trio.CancelScope()
        self._changed: trio.Event
        self._listening = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._run,), name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._listening.wait(10), "the proxy does not listen"
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._scope.cancel)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the proxy does not end"

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def links(self) -> int:
        """How many connections stand."""
        return self._do(lambda: len(self._links))

    def hold(self, *ways: Way) -> None:
        """Let nothing through, and keep it: new connections are taken and hear nothing."""
        self._change(ways, mood=Mood.HOLD)

    def swallow(self, *ways: Way) -> None:
        """Take everything and pass nothing on."""
        self._change(ways, mood=Mood.SWALLOW)

    def slow(self, seconds: float, *ways: Way) -> None:
        """Pass everything on so much later, in order."""
        self._change(ways, delay=seconds)

    def cut_after(self, size: int, *ways: Way) -> None:
        """Cut the connection that carries the last of so many further bytes, wherever that is."""
        self._change(ways, allowance=size)

    def heal(self) -> None:
        """Pass everything on, what was held included; connections that lost something are cut."""

        def heal() -> None:
            self._states = dict.fromkeys(Way, _State())
            for link in self._links:
                if link.torn:
                    link.cut()
            self._tell()

        self._do(heal)

    def cut(self) -> None:
        """Reset every connection that stands."""

        def cut() -> None:
            for link in self._links:
                link.cut()

        self._do(cut)

    def _change(self, ways: tuple[Way, ...], **values: Any) -> None:
        def change() -> None:
            for way in ways or BOTH:
                self._states[way] = evolve(self._states[way], **values)
            self._tell()

        self._do(change)

    def _do(self, what: Callable[[], T]) -> T:
        return trio.from_thread.run_sync(what, trio_token=self._token)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _run(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._changed = trio.Event()
        with self._scope:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            self.port = listener.socket.getsockname()[1]
            self._listening.set()
            await trio.serve_listeners(self._serve, [listener])

    async def _serve(self, client: trio.SocketStream) -> None:
        self.accepted += 1
        link = _Link(client)
        self._links.add(link)
        try:
            with link.scope:
                try:
                    broker = await trio.open_tcp_stream("127.0.0.1", self.target)
                except OSError:
                    return
                async with client, broker:
                    try:
                        async with trio.open_nursery() as nursery:
                            nursery.start_soon(self._carry, link, Way.UP, client, broker)
                            nursery.start_soon(self._carry, link, Way.DOWN, broker, client)
                    finally:
                        if link.reset:
                            for stream in (client, broker):
                                stream.setsockopt(
                                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                                )
        finally:
            await trio.aclose_forcefully(client)
            self._links.discard(link)

    async def _carry(self, link: _Link, way: Way, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        send, receive = trio.open_memory_channel[tuple[float, bytes]](_AHEAD)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, source, way, send)
            async with receive:
                async for due, chunk in receive:
                    await trio.sleep_until(due)
                    while self._states[way].mood is Mood.HOLD:
                        await self._changed.wait()
                    # The end of a connection is held back like everything else.
                    if not chunk or not await self._pass_on(link, way, sink, chunk):
                        link.scope.cancel()

    async def _read(
        self, source: trio.SocketStream, way: Way, send: trio.MemorySendChannel[tuple[float, bytes]]
    ) -> None:
        async with send:
            while True:
                chunk = b""
                with suppress(trio.BrokenResourceError):
                    chunk = await source.receive_some(_CHUNK)
                await send.send((trio.current_time() + self._states[way].delay, chunk))
                if not chunk:
                    return

    async def _pass_on(self, link: _Link, way: Way, sink: trio.SocketStream, chunk: bytes) -> bool:
        """Pass a chunk on or swallow it; False where the connection ends with it."""
        state = self._states[way]
        if state.mood is Mood.SWALLOW:
            link.torn = True
            return True
        last = state.allowance is not None and len(chunk) >= state.allowance
        if state.allowance is not None:
            chunk = chunk[: state.allowance]
            self._states[way] = evolve(state, allowance=None if last else state.allowance - len(chunk))
        self.carried[way] += len(chunk)
        try:
            await sink.send_all(chunk)
        except trio.BrokenResourceError:
            return False
        return not last
