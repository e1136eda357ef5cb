"""Asks a scheduler over a bus in memory, as an operator does."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from attrs import frozen
from trio.testing import wait_all_tasks_blocked

from support.fakes import JSON, Reply, Site, document, encode, ignore, open_service

QUERIES = ("list", "get", "why", "history", "plan", "report", "unmasked")
STEERING = ("cancel", "pause", "resume", "retry", "skip", "approve", "reject", "extend", "limit")
VERBS = (*QUERIES, *STEERING)
CHAIN = document("ab", [("a", "b")])
NEEDED: dict[str, JSON] = {
    "skip": {"component": "a"},
    "approve": {"component": "a"},
    "reject": {"component": "a"},
    "extend": {"component": "a", "seconds": 5},
    "limit": {"limits": {"*": 3}},
}
"""Members that a verb needs beside the id of the build."""

NUMBERS = {
    "invalid": "400",
    "unknown": "404",
    "conflict": "409",
    "expired": "410",
    "internal": "500",
    "unavailable": "503",
}


@frozen
class Answer:
    """Answers to an operator."""

    body: JSON
    headers: dict[str, str]

    @property
    def code(self) -> str:
        """That of a refusal, which is as it should be in its body and its headers."""
        error = self.body["error"]
        assert set(error) == {"code", "message"}
        assert set(self.headers) == {"Nats-Service-Error", "Nats-Service-Error-Code"}
        assert self.headers["Nats-Service-Error-Code"] == NUMBERS[error["code"]]
        code: str = error["code"]
        return code

    @property
    def text(self) -> str:
        """Return the text of a refusal."""
        text: str = self.body["error"]["message"]
        return text


async def ask_raw(site: Site, verb: str, data: bytes) -> Answer:
    message = await site.bus.request(f"scheduler.build.{verb}", data)
    return Answer(json.loads(message.data), dict(message.headers or {}))


async def ask(site: Site, verb: str, build: str = "b1", **fields: Any) -> JSON:
    """Return the answer to a question, which must not be refused."""
    answer = await ask_raw(site, verb, encode({"id": build, **fields}))
    assert answer.headers == {}, answer.body
    return answer.body


async def refused(site: Site, verb: str, build: str = "b1", **fields: Any) -> tuple[str, str]:
    """The code and the text with which a question is refused."""
    answer = await ask_raw(site, verb, encode({"id": build, **fields}))
    assert answer.body["id"] == build
    return answer.code, answer.text


async def run(site: Site, value: JSON) -> None:
    """Have a build run as far as it gets."""
    assert (await site.submit(value))["status"] == "accepted"
    await wait_all_tasks_blocked()


@asynccontextmanager
async def running(value: JSON = CHAIN, **options: Any) -> AsyncIterator[Site]:
    """A service with a build whose first requests nobody has answered yet."""
    async with open_service(**{"script": ignore, **options}) as site:
        await run(site, value)
        yield site


def flaky(name: str, times: int) -> Callable[[JSON], list[Reply]]:
    """Connectors that fail this component so many times, and do everything else."""
    left = [times]

    def script(component: JSON) -> list[Reply]:
        if component["_component_id"] == name and left[0]:
            left[0] -= 1
            return [Reply("errored", fields={"error": "busy"})]
        return [Reply()]

    return script
