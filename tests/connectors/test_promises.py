"""What the kit promises, whatever comes: repetitions, cancellations, and a broker that goes."""

from collections import Counter
from typing import Any

import trio
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st
from support.connecting import open_connector
from support.fake_bus import FakeBus
from trio.testing import MockClock

from scheduler.connectors import Connectors, Context

_KEYS = 2
ACTIONS = st.tuples(
    st.sampled_from(("ask", "cancel", "ask", "again", "cancel", "away", "back")),
    st.integers(0, _KEYS - 1),
    st.sampled_from((0.1, 0.1, 1.0, 7.0)),
)
ENDS = ("cleans up", "cleans up", "done", "fails")
CALLS = st.lists(
    st.tuples(st.sampled_from((12.0, 3.0, 0.5, 0.0)), st.sampled_from(ENDS)),
    min_size=1,
    max_size=6,
)
"""Seconds that each call takes, and how it ends."""


@define
class World:
    """The cloud: what is being done there, and what was."""

    calls: list[tuple[float, str]]
    number: int = 0
    acting: Counter[str] = field(factory=Counter)
    done: Counter[str] = field(factory=Counter)
    broken: list[str] = field(factory=list)

    async def act(self, context: Context) -> dict[str, Any]:
        seconds, end = self.calls[self.number % len(self.calls)]
        self.number += 1
        self.acting[context.key] += 1
        if self.acting[context.key] > 1:
            self.broken.append(f"two calls at a time for {context.key}")
        if self.done[context.key]:
            self.broken.append(f"{context.key} was done already")
        try:
            context.progress(0.5)
            await trio.sleep(seconds)
            if end == "fails":
                raise ValueError("no")
            self.done[context.key] += 1
            return {"by": context.attempt}
        finally:
            if end == "cleans up":
                with trio.CancelScope(shield=True):
                    await trio.sleep(2)
            self.acting[context.key] -= 1


async def play(world: World, steps: list[tuple[str, int, float]], concurrency: int, longest: float) -> None:
    bus = FakeBus()
    connectors = Connectors("aws", concurrency=concurrency, timeout=longest)
    connectors.create("vpc")(world.act)
    asked: dict[str, str] = {}
    attempts: Counter[int] = Counter()
    async with open_connector(connectors, bus, drain=1_000) as peer:
        for step, key, seconds in steps:
            attempt = f"b/{key}/{attempts[key]}"
            if step == "ask" and bus.connected:
                attempts[key] += 1
                attempt = f"b/{key}/{attempts[key]}"
                token = attempt.replace("/", "-")
                asked[attempt] = peer.ask(attempt=attempt, key=f"b/{key}", token=token)
            elif step == "again" and attempt in asked and bus.connected:
                peer.ask(attempt=attempt, key=f"b/{key}", token=attempt.replace("/", "-"))
            elif step == "cancel" and attempt in asked:
                peer.cancel(attempt)
            elif step == "away":
                bus.disconnect()
            elif step == "back" and not bus.connected:
                bus.reconnect()
            await trio.sleep(seconds)
        if not bus.connected:
            bus.reconnect()
        await trio.sleep(500)
    assert world.broken == []
    assert not +world.acting
    assert [attempt for attempt, to in asked.items() if not peer.replies(to)] == []
    for key in range(_KEYS):
        succeeded = [
            reply
            for attempt, to in asked.items()
            if attempt.startswith(f"b/{key}/")
            for reply in peer.replies(to)
            if reply["_state"] == "completed"
        ]
        assert len({reply["by"] for reply in succeeded}) <= 1


@settings(max_examples=150)
@given(st.lists(ACTIONS, max_size=20), CALLS, st.sampled_from((2, 1)), st.sampled_from((1_000.0, 2.0)))
def test_every_request_is_answered_and_no_component_is_acted_on_twice(
    steps: list[tuple[str, int, float]], calls: list[tuple[float, str]], concurrency: int, longest: float
) -> None:
    """Each attempt has a reply, a component has one call at a time, and nothing done is done again."""
    clock = MockClock(autojump_threshold=0)
    trio.run(play, World(calls), steps, concurrency, longest, clock=clock)
