"""Commands run in this process, against a scheduler that says what a test wants."""

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from scheduler.bus import Bus, Message
from support.fake_bus import FakeBus
from support.feeds import JSON


class FakeScheduler:
    """Answers what a test says, on a bus of its own, which takes the broker's place in every command."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, JSON]] = []
        self.asked_for_all = trio.Event()
        """Event that is set once a build with its components is asked for."""
        self.answers: dict[str, Callable[[JSON], Any]] = {}
        self.there = True
        self.silent = False
        self.forbidden: set[str] = set()
        self.script: Callable[[FakeBus], Awaitable[None]] | None = None

    def say(self, verb: str, answer: JSON) -> None:
        self.answers[verb] = lambda _: answer

    def refuse(self, verb: str, code: str, text: str) -> None:
        self.answers[verb] = lambda _: (
            {"error": {"code": code, "message": text}},
            {"Nats-Service-Error": text},
        )

    async def run(self, _settings: Any, _behaviour: Any, job: Callable[[Bus], Awaitable[int]]) -> int:
        """In place of `session.with_parts`."""
        async with self.open() as bus:
            return await job(bus)

    @asynccontextmanager
    async def open(self, *_options: Any, **_more: Any) -> AsyncIterator[Bus]:
        """In place of `scheduler.bus.nats.open_bus`."""
        bus = FakeBus()
        bus.forbidden = self.forbidden

        def handle(message: Message) -> None:
            verb, question = message.subject.rpartition(".")[2], json.loads(message.data)
            self.asked.append((verb, question))
            if self.silent:
                return
            if question.get("components"):
                self.asked_for_all.set()
            unknown = (
                {"error": {"code": "unknown", "message": f"a {verb} of nothing"}},
                {"Nats-Service-Error": "unknown"},
            )
            answer = self.answers.get(verb)
            said = unknown if answer is None else answer(question)
            document, headers = said if isinstance(said, tuple) else (said, None)
            bus.deliver(message.reply, json.dumps(document, ensure_ascii=False).encode(), headers=headers)

        if self.there:
            await bus.subscribe("scheduler.build.*", handle)
        async with trio.open_nursery() as nursery:
            if self.script is not None:
                nursery.start_soon(self.script, bus)
            yield bus
            nursery.cancel_scope.cancel()


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch) -> FakeScheduler:
    """A scheduler that every command reaches."""
    for name in list(os.environ):
        if name.startswith(("SCHEDULER_", "NATS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")
    fake = FakeScheduler()
    monkeypatch.setattr("scheduler.commands.session.with_parts", fake.run)
    return fake
