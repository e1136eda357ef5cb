"""Simulated operators: they ask for what a scenario has them ask for, and ask again where nobody answers."""

import json
import random
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from scheduler.errors import NoResponders
from simulation.gates import decision
from simulation.gating import APPROVER, is_gate
from simulation.network import SimBus
from simulation.operating import JSON, Order
from simulation.trace import Step

if TYPE_CHECKING:
    from simulation.driver import Driver

NAME = "operator"
_PATIENCE = 4.0
"""Seconds until a question is asked again."""
_MOST_QUESTIONS = 6
"""... so often at most; but a pause is ended by all means."""
_ROUND = 6.0
_WAITS_UNTIL = 20.0
"""Seconds after the last fault until which something is waited for that an order is to come after."""


class Operator:
    """Carries out the orders of one scenario."""

    def __init__(self, driver: "Driver") -> None:
        self.bus = SimBus(driver.world, NAME)
        self.pending = 0
        """Orders that are not carried out yet."""
        self._driver = driver
        self._rng = random.Random(f"operator {driver.scenario.seed}")

    async def start(self, nursery: trio.Nursery) -> None:
        """Connect, and begin with all orders."""
        orders, gates = self._driver.scenario.operating.orders, self._driver.scenario.operating.gates
        if not orders and not gates:
            return
        await self.bus.connect()
        if gates:
            nursery.start_soon(self._decide)
        for order in orders:
            self.pending += 1
            nursery.start_soon(self._carry_out, order)
        if any(order.verb == "pause" for order in orders):
            nursery.start_soon(self._rounds)

    async def _carry_out(self, order: Order) -> None:
        await trio.sleep_until(order.at)
        if order.after and order.build not in self._driver.over:
            with trio.move_on_at(self._driver.scenario.heals_at + _WAITS_UNTIL):
                await self._happens(order)
        await trio.sleep(order.pause)
        document = await self._completed(order)
        for _ in range(_MOST_QUESTIONS):
            answer = await self.ask(order.verb, document)
            if answer is not None and answer.get("error", {}).get("code") != "unavailable":
                break
            await trio.sleep(self._rng.uniform(0.1, 2.0))
        self.pending -= 1
        self._driver.look()

    async def _completed(self, order: Order) -> JSON:
        """The question, with a component in it that is in the wanted state, if any is."""
        if not order.state:
            return order.document
        seen = await self.ask("get", {"id": order.build}) or {}
        components = seen.get("components", [])
        wanted = [one["id"] for one in components if one["state"] == order.state]
        if not wanted:
            build = next(one for one in self._driver.scenario.builds if one["id"] == order.build)
            wanted = [change["_component_id"] for change in build["changes"]]
        return {**order.document, "component": self._rng.choice(wanted)}

    async def _happens(self, order: Order) -> None:
        happened = trio.Event()
        left = order.times

        def watch(step: Step) -> None:
            nonlocal left
            if step.kind == order.after and step.build == order.build:
                left -= 1
            # What did not happen by the end of the build will not.
            if not left or (step.kind == "over" and step.build == order.build):
                happened.set()

        listeners = self._driver.trace.listeners
        listeners.append(watch)
        await happened.wait()
        listeners.remove(watch)

    async def _rounds(self) -> None:
        """When all is well again: end the pauses whose end nobody heard of, or that came in late."""
        await trio.sleep_until(self._driver.scenario.heals_at)
        while True:
            await trio.sleep(_ROUND)
            for build in self._driver.scenario.builds:
                if build["id"] not in self._driver.over:
                    await self.ask("resume", {"id": build["id"]})

    async def _decide(self) -> None:
        """Look for gates that wait, and decide about them, or not."""
        seed = self._driver.scenario.seed
        rng = random.Random(f"approver {seed}")
        while True:
            await trio.sleep(rng.uniform(0.1, 2.0))
            for build in self._driver.scenario.builds:
                name = build["id"]
                if name in self._driver.over or not any(map(is_gate, build["changes"])):
                    continue
                seen = await self.ask("why", {"id": name}) or {}
                for one in seen.get("reasons", []):
                    component = one.get("component", "")
                    verb = decision(seed, name, component)
                    if one.get("state") == "gated" and verb:
                        await self.ask(verb, {"id": name, "component": component, "by": APPROVER})

    async def ask(self, verb: str, document: JSON) -> JSON | None:
        """Ask once; returns the answer, None where there is none."""
        with trio.move_on_after(_PATIENCE), suppress(NoResponders):
            message = await self.bus.request(f"scheduler.build.{verb}", json.dumps(document).encode())
            answer: JSON = json.loads(message.data)
            error = answer.get("error", {}) if verb != "get" else {}
            detail = (verb, error.get("code", ""), error.get("message") or answer.get("text"))
            self._driver.trace.add("told", NAME, document["id"], document.get("component", ""), detail)
            return answer
        return None
