"""Where the page of a build is, as the scheduler says over service discovery."""

import json
from typing import Any

import pytest
from support.fake_bus import FakeBus

from scheduler.bus import Message
from scheduler.client.pages import page_of_build
from scheduler.web.console import Console

HERE = ("nats://127.0.0.1:4222",)
ELSEWHERE = ("nats://broker.example:4222",)


async def told(answer: bytes, servers: tuple[str, ...]) -> str:
    bus = FakeBus()

    def say(message: Message) -> None:
        bus.deliver(message.reply, answer)

    await bus.subscribe("$SRV.INFO.scheduler", say)
    return await page_of_build(bus, "a/b", servers)


def info(page: Any) -> bytes:
    return json.dumps({"name": "scheduler", "metadata": {"store": "memory", "web": page}}).encode()


@pytest.mark.parametrize(
    ("page", "servers", "expected"),
    [
        ("http://127.0.0.1:8080/", HERE, "http://127.0.0.1:8080/builds/a%2Fb"),
        ("http://127.0.0.1:8080/", ELSEWHERE, ""),
        ("https://ci.example/s/", ELSEWHERE, "https://ci.example/s/builds/a%2Fb"),
        ("javascript:alert(1)/", HERE, ""),
        ("http://ci.example/\x1b[31m/", HERE, ""),
        ("http://[/", HERE, ""),
        ("", HERE, ""),
        (7, HERE, ""),
    ],
    ids=str,
)
async def test_a_page_is_told_that_can_be_reached(page: Any, servers: tuple[str, ...], expected: str) -> None:
    """Not one of another machine's own, and nothing that is no address."""
    assert await told(info(page), servers) == expected


@pytest.mark.parametrize("answer", [b"", b"[]", b'{"metadata": {}}', b"{"])
async def test_a_scheduler_without_a_page_has_none(answer: bytes) -> None:
    """An earlier version, or another program."""
    assert await told(answer, HERE) == ""


async def test_without_a_scheduler_there_is_none() -> None:
    """And nothing is waited for."""
    assert await page_of_build(FakeBus(), "b1", HERE) == ""


def test_a_service_with_a_page_says_so() -> None:
    """Beside its store; one without says nothing of it."""
    console = Console(FakeBus(), "alpha")
    assert console.described({"store": "memory"}) == {"store": "memory"}
    console.page = "http://127.0.0.1:8080/"
    assert console.described({"store": "memory"}) == {"store": "memory", "web": console.page}
