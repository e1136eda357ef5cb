"""The proxy passes on what it is to pass on, and nothing else."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from integration.durable.proxy import Proxy, Way


class Echo:
    """A server that says everything it hears, and hangs up after an exclamation mark."""

    def __init__(self, stack: ExitStack) -> None:
        self._listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.port: int = self._listener.getsockname()[1]
        self.heard = threading.Semaphore(0)
        """Released for every byte."""
        self._threads: list[threading.Thread] = []
        acceptor = threading.Thread(target=self._accept)
        acceptor.start()
        stack.callback(acceptor.join)
        stack.callback(self._listener.shutdown, socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                break
            thread = threading.Thread(target=self._serve, args=(connection,))
            thread.start()
            self._threads.append(thread)
        for thread in self._threads:
            thread.join()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65_536):
                    self.heard.release(len(data))
                    connection.sendall(data)
                    if data.endswith(b"!"):
                        break
            except OSError:
                pass


class Line:
    """A client's connection."""

    def __init__(self, stack: ExitStack, port: int) -> None:
        self._socket = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))

    def say(self, text: bytes) -> None:
        self._socket.sendall(text)

    def hear(self, size: int) -> bytes:
        """The next bytes; fewer where the connection ends before."""
        heard = b""
        while len(heard) < size:
            try:
                data = self._socket.recv(size - len(heard))
            except ConnectionResetError:
                break
            if not data:
                break
            heard += data
        return heard

    def hears_nothing(self, seconds: float) -> bool:
        self._socket.settimeout(seconds)
        try:
            return self._socket.recv(1) == b"?"
        except TimeoutError:
            return True
        finally:
            self._socket.settimeout(10)


class Setting:
    """A server, a proxy before it, and clients."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.echo = Echo(stack)
        self.proxy = stack.enter_context(Proxy(self.echo.port))

    def connect(self) -> Line:
        return Line(self.stack, self.proxy.port)


@pytest.fixture
def setting() -> Iterator[Setting]:
    with ExitStack() as stack:
        yield Setting(stack)


def test_it_passes_everything_on(setting: Setting) -> None:
    """Both ways, for several at a time, in order."""
    lines = [setting.connect(), setting.connect()]
    data = bytes(range(256)) * 400
    for line in lines:
        line.say(data)
    for line in lines:
        assert line.hear(len(data)) == data
    assert setting.proxy.carried == {Way.UP: 2 * len(data), Way.DOWN: 2 * len(data)}
    assert setting.proxy.links == 2


@pytest.mark.parametrize("way", Way)
def test_what_is_held_arrives_when_it_is_healed(setting: Setting, way: Way) -> None:
    """Held up, the server hears nothing; held down, the client."""
    line = setting.connect()
    line.say(b"a")
    assert line.hear(1) == b"a"
    setting.echo.heard.acquire()
    setting.proxy.hold(way)
    line.say(b"b")
    assert setting.echo.heard.acquire(timeout=10 if way is Way.DOWN else 0.1) is (way is Way.DOWN)
    assert line.hears_nothing(0.1)
    setting.proxy.heal()
    assert line.hear(1) == b"b"


def test_who_connects_to_a_black_hole_hears_nothing(setting: Setting) -> None:
    """The connection is taken, and serves once the proxy is healed."""
    setting.proxy.hold()
    line = setting.connect()
    line.say(b"a")
    assert line.hears_nothing(0.1)
    setting.proxy.heal()
    assert line.hear(1) == b"a"


def test_the_end_of_a_connection_is_held_back_too(setting: Setting) -> None:
    """A server that goes away in a black hole is not noticed before it is healed."""
    line = setting.connect()
    setting.proxy.hold(Way.DOWN)
    line.say(b"a!")
    for _ in range(2):
        assert setting.echo.heard.acquire(timeout=10)
    assert line.hears_nothing(0.1)
    setting.proxy.heal()
    assert line.hear(100) == b"a!"


def test_a_connection_that_lost_something_is_cut_when_it_is_healed(setting: Setting) -> None:
    """One that lost nothing goes on."""
    line, other = setting.connect(), setting.connect()
    for one in (line, other):
        one.say(b"a")
        assert one.hear(1) == b"a"
    setting.proxy.swallow(Way.DOWN)
    line.say(b"b")
    for _ in range(3):
        assert setting.echo.heard.acquire(timeout=10)
    assert line.hears_nothing(0.1)
    setting.proxy.heal()
    assert line.hear(1) == b""
    other.say(b"c")
    assert other.hear(1) == b"c"


def test_it_is_slow(setting: Setting) -> None:
    """Everything arrives so much later."""
    line = setting.connect()
    setting.proxy.slow(0.2, Way.UP)
    line.say(b"a")
    assert line.hears_nothing(0.15)
    assert line.hear(1) == b"a"


def test_it_cuts(setting: Setting) -> None:
    """Every connection ends, and new ones are served."""
    line = setting.connect()
    line.say(b"a")
    assert line.hear(1) == b"a"
    setting.proxy.cut()
    assert line.hear(1) == b""
    line = setting.connect()
    line.say(b"b")
    assert line.hear(1) == b"b"
    assert setting.proxy.links == 1


def test_it_cuts_in_the_middle(setting: Setting) -> None:
    """So many bytes arrive, and no more; the next connection is whole again."""
    line = setting.connect()
    setting.proxy.cut_after(10, Way.DOWN)
    line.say(b"0123")
    assert line.hear(4) == b"0123"
    line.say(b"456789abc")
    assert line.hear(100) == b"456789"
    line = setting.connect()
    line.say(b"0123456789abc")
    assert line.hear(13) == b"0123456789abc"


def test_a_server_that_is_not_there_refuses_its_clients() -> None:
    """The connection is closed at once."""
    with ExitStack() as stack:
        unused = socket.create_server(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        unused.close()
        proxy = stack.enter_context(Proxy(port))
        assert Line(stack, proxy.port).hear(1) == b""
