"""Builds that do not get on, to be asked why."""

from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from scheduler.journal.timings import Timings
from scheduler.supervision.explainer import Explainer, Seen
from scheduler.supervision.feed import Feed, Track
from scheduler.supervision.reasons import Knowledge
from scheduler.walk import Steering, Walk
from support.fakes import (
    JSON,
    Reply,
    World,
)

DAY = 1_700_000_000.0


class Patient:
    """Running build, as under a supervisor, with the answers about it."""

    def __init__(self, world: World, value: JSON) -> None:
        self.world = world
        self.plan = world.plan(value)
        began = trio.current_time()

        def clock() -> float:
            return DAY + trio.current_time() - began

        self.timings = Timings(len(self.plan.phases), clock(), clock)
        self.track = Track(Feed(world.bus), self.plan, self.timings, lambda *_: None)
        self.walk = Walk(self.plan, world.connectors, world.store, world.slots, self.track)
        world.slots.open(self.plan, self.plan.state.rules)
        self.seen = Seen(self.plan, self.timings, self.walk, revision=self.track.revision)
        self.knowledge = Knowledge()

    async def start(self, nursery: trio.Nursery) -> None:
        """Start it and let it get as far as it gets."""
        nursery.start_soon(self.walk.run)
        await wait_all_tasks_blocked()

    async def fail(self, name: str, error: str = "quota", **fields: Any) -> None:
        """Have a component's connector say so."""
        self.world.cloud.answer(name, Reply("errored", fields={"error": error, **fields}))
        await wait_all_tasks_blocked()

    async def complete(self, name: str, **fields: Any) -> None:
        """Have a component's connector say so."""
        self.world.cloud.answer(name, Reply(fields=fields))
        await wait_all_tasks_blocked()

    @property
    def commands(self) -> Steering:
        return self.walk.steer()

    @property
    def doctor(self) -> Explainer:
        return Explainer(self.seen, self.world.slots, self.world.store, self.knowledge)

    def why(self, name: str) -> JSON:
        """Why a component is where it is."""
        return self.doctor.component(self.plan.graph.index[name])

    @property
    def reasons(self) -> list[str]:
        """Why the build is where it is."""
        return [reason["text"] for reason in self.doctor.build()[0]]
