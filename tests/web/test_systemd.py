"""What systemd is told, over its socket."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from support.fakes import document, ignore, open_service
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.web.board import Board
from scheduler.web.systemd import SdNotify, keep_told, open_sd_notify, watchdog_of


@pytest.fixture(params=["path", "abstract"])
def ear(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """A socket as systemd has it, by a path or by a name without a file."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0{name[1:]}" if name.startswith("@") else name)
        heard.setblocking(False)
        yield name, heard


def told(heard: socket.socket) -> list[str]:
    """The lines that came so far."""
    lines: list[str] = []
    while True:
        try:
            lines += heard.recv(4_096).decode().splitlines()
        except BlockingIOError:
            return lines


async def test_it_is_told_when_builds_are_taken_and_when_it_stops(
    ear: tuple[str, socket.socket], autojump_clock: MockClock
) -> None:
    """Ready, with counts that follow; stopping at the stop, and once."""
    name, heard = ear
    board = Board()
    with open_sd_notify({"NOTIFY_SOCKET": name}) as notify:
        assert notify is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_told, notify, board)
            await trio.sleep(1)
            assert told(heard) == ["STATUS=it connects to the broker"]
            async with open_service(script=ignore, max_in_flight=1) as site:
                with board.showing(site.service.figures):
                    await trio.sleep(5)
                    assert told(heard) == ["READY=1", "STATUS=ready; 0 builds, 0 in flight, 0 queued"]
                    await site.submit(document("ab"))
                    await trio.sleep(5)
                    assert told(heard) == ["STATUS=ready; 1 builds, 1 in flight, 1 queued"]
                    site.service.stop()
                    await trio.sleep(5)
                    lines = told(heard)
                    assert lines[0] == "STOPPING=1"
                    assert lines.count("STOPPING=1") == 1
                    assert lines[1].startswith("STATUS=it is stopping; ")
            nursery.cancel_scope.cancel()
    assert told(heard)[-1] == "STOPPING=1"


async def test_the_watchdog_is_told_in_time(
    ear: tuple[str, socket.socket], autojump_clock: MockClock
) -> None:
    """At least twice within the seconds that it waits."""
    name, heard = ear
    with open_sd_notify({"NOTIFY_SOCKET": name}) as notify:
        assert notify is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_told, notify, Board(), 4.0)
            for _ in range(10):
                await trio.sleep(4.0)
                assert told(heard).count("WATCHDOG=1") >= 2
            nursery.cancel_scope.cancel()


async def test_a_turn_that_comes_much_too_late_is_no_sign_of_life(mock_clock: MockClock) -> None:
    """A loop that hangs most of the time is not taken for one that works."""
    sent: list[str] = []

    class Noting(SdNotify):
        def send(self, *lines: str) -> None:
            sent.extend(lines)

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unused:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_told, Noting(unused, ""), Board(), 4.0)
            await wait_all_tasks_blocked()
            assert sent.pop() == "WATCHDOG=1"
            mock_clock.jump(3.0)
            await wait_all_tasks_blocked()
            assert "WATCHDOG=1" not in sent
            mock_clock.jump(0.3)
            await wait_all_tasks_blocked()
            assert sent.pop() == "WATCHDOG=1"
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("variables", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}])
def test_without_a_socket_nobody_is_told(variables: dict[str, str]) -> None:
    """As where systemd did not start it."""
    with open_sd_notify(variables) as notify:
        assert notify is None


def test_a_systemd_that_does_not_read_delays_nothing(tmp_path: Path) -> None:
    """Neither one whose queue is full, nor one that is gone."""
    path = str(tmp_path / "notify")
    with open_sd_notify({"NOTIFY_SOCKET": path}) as notify:
        assert notify is not None
        notify.send("READY=1")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
            heard.bind(path)
            for _ in range(1_000):
                notify.send("STATUS=x" * 100)


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "90000000"}, 90.0),
        ({"WATCHDOG_USEC": "90000000", "WATCHDOG_PID": str(os.getpid())}, 90.0),
        ({"WATCHDOG_USEC": "90000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "x"}, None),
    ],
)
def test_the_watchdog_is_for_the_process_that_it_names(
    variables: dict[str, str], seconds: float | None
) -> None:
    """A child of another one is none of its business."""
    assert watchdog_of(variables) == seconds
