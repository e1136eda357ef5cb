"""Asks a scheduler over a bus in memory, as an operator does."""

import json
from typing import Any

from attrs import frozen

from support.fakes import (
    JSON,
    Site,
    encode,
)

NUMBERS = {"invalid": "400", "unknown": "404", "conflict": "409", "internal": "500", "unavailable": "503"}


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
