"""Crowd of viewers of the page: ``python -m benchmarks.crowd PORT NUMBER PATH ...``, a process of its own.

Each viewer reads one event stream, as a browser does; the paths are taken in turn. `ANY` in place of a path
is the stream of whatever attack runs. A stream that ends is opened again after `_AGAIN`, as browsers do.
When all are open the process says `_OPEN`; when standard input ends it says how many updates and bytes came
since then.
"""

import json
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import trio
from attrs import define, frozen

from benchmarks.processes import THIS, NotReadyError, read_line, running

ANY: Final = "any"
ALL_BUILDS: Final = "/api/stream"
_OPEN: Final = "open"
_AGAIN: Final = 2.0
"""Seconds until a stream is opened again that has ended."""
_SEARCH: Final = "/api/builds?state=active&limit=1&search=hostile-"
_HEAD: Final = 2.0
"""Seconds until a short question is answered, at most, before it is asked again."""


@define
class _Counts:
    updates: int = 0
    bytes: int = 0


@frozen
class Seen:
    """What a crowd got, while it was asked for."""

    updates: int
    bytes: int


class _Crowd:
    """Viewers of one server.

    Args:
        port: its port, on loopback.
    """

    def __init__(self, port: int) -> None:
        self.counts = _Counts()
        self._port = port

    async def view(self, path: str, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read a stream, again and again; started once the first attempt has been made."""
        told = False
        while True:
            try:
                found = await self._found() if path == ANY else path
                async with await self._ask(found) as stream:
                    if not told:
                        task_status.started()
                        told = True
                    async for data in stream:
                        self.counts.bytes += len(data)
                        self.counts.updates += data.count(b"event: update")
            except (OSError, trio.BrokenResourceError):
                # It is killed in some attacks, and comes again.
                pass
            if not told:
                task_status.started()
                told = True
            await trio.sleep(_AGAIN)

    async def _ask(self, path: str) -> trio.SocketStream:
        stream = await trio.open_tcp_stream("127.0.0.1", self._port)
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return stream

    async def _found(self) -> str:
        """Return the stream of an attack's build; of all builds where none runs."""
        answer = bytearray()
        with trio.move_on_after(_HEAD):
            async with await self._ask(_SEARCH) as stream:
                async for data in stream:
                    answer += data
        _, _, body = bytes(answer).partition(b"\r\n\r\n")
        builds = json.loads(body[body.find(b"{") : body.rfind(b"}") + 1] or b"{}").get("builds", [])
        if not builds:
            return ALL_BUILDS
        return f"/api/builds/{urllib.parse.quote(builds[0]['id'], safe='')}/stream"


async def _run(port: int, number: int, paths: Sequence[str]) -> None:
    crowd = _Crowd(port)
    async with trio.open_nursery() as nursery:
        for one in range(number):
            await nursery.start(crowd.view, paths[one % len(paths)])
        sys.stdout.write(f"{_OPEN}\n")
        sys.stdout.flush()
        crowd.counts = _Counts()
        await trio.to_thread.run_sync(sys.stdin.read)
        nursery.cancel_scope.cancel()
    sys.stdout.write(f"{crowd.counts.updates} {crowd.counts.bytes}\n")


class Crowd:
    """Crowd that looks, as its starter sees it."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def leave(self) -> Seen:
        """Let the viewers go; return what they got."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        updates, size = read_line(self._process).split()
        return Seen(int(updates), int(size))


@contextmanager
def crowd(folder: Path, port: int, number: int, *paths: str) -> Iterator[Crowd]:
    """Let so many viewers look in the block.

    Args:
        folder: for the log of their process.
        port: port of the page, on loopback.
        number: number of viewers.
        paths: streams that they look at, in turn.
    """
    command = THIS.command("benchmarks.crowd", str(port), str(number), *paths)
    with running(command, log=folder / "crowd.log", piped=True) as process:
        if read_line(process) != _OPEN:
            raise NotReadyError(f"the viewers do not come: see {folder}")
        yield Crowd(process)


if __name__ == "__main__":
    trio.run(_run, int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
