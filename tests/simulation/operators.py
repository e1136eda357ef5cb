"""Simulated operators: they ask for what a scenario has them ask for, and ask again where nobody answers."""

import json
import random
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from scheduler.errors import NoResponders
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
        orders = self._driver.scenario.operating.orders
        if not orders:
            return
        await self.bus.connect()
        for order in orders:
            self.pending += 1
            nursery.start_soon(self._carry_out, order)
        if any(order.verb == "pause" for order in orders):
            nursery.start_soon(self._rounds)

    async def _carry_out(self, order: Order) -> None:
        await trio.sleep_until(order.at)
        if order.after and not (order.after == "over" and order.build in self._driver.over):
            with trio.move_on_at(self._driver.scenario.heals_at + _WAITS_UNTIL):
                await self._happens(order)
        await trio.sleep(order.pause)
        for _ in range(_MOST_QUESTIONS):
            code = await self.ask(order.verb, order.document)
            if code is not None and code != "unavailable":
                break
            await trio.sleep(self._rng.uniform(0.1, 2.0))
        self.pending -= 1
        self._driver.look()

    async def _happens(self, order: Order) -> None:
        happened = trio.Event()

        def watch(step: Step) -> None:
            if step.kind == order.after and step.build == order.build:
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

    async def ask(self, verb: str, document: JSON) -> str | None:
        """Ask once; returns the code of a refusal, empty where it is done, None where nobody answers."""
        with trio.move_on_after(_PATIENCE), suppress(NoResponders):
            message = await self.bus.request(f"scheduler.build.{verb}", json.dumps(document).encode())
            answer: JSON = json.loads(message.data)
            code: str = answer.get("error", {}).get("code", "")
            said = answer.get("error", answer)
            detail = (verb, code, said.get("text") or said.get("message"))
            self._driver.trace.add("told", NAME, document["id"], document.get("component", ""), detail)
            return code
        return None
