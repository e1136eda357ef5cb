"""The processes of the service: each on a connection of its own, to be killed at any moment."""

from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio
from attrs import define, field

from scheduler.process import open_store
from scheduler.service import Service
from simulation.network import SimBus, SimListener
from simulation.who import WHO

if TYPE_CHECKING:
    from simulation.driver import Driver


@define(eq=False)
class Process:
    """One process of the service."""

    driver: "Driver"
    name: str
    instance: str = ""
    """Name that the process before it had, too, and the one after it will have; empty where there is none."""
    rate: float = 1.0
    """Seconds that pass on its clock in a second."""
    bus: SimBus = field(init=False)
    listener: SimListener = field(init=False)
    service: Service | None = None
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    over: trio.Event = field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        enter = partial(WHO.set, self)
        self.bus = SimBus(self.driver.world, self.name, enter)
        self.listener = SimListener(self.bus, self.driver.world, enter)

    async def run(self) -> None:
        """Run the service as `scheduler serve` does, over the simulated bus."""
        WHO.set(self)
        trace = self.driver.trace
        trace.add("starts", self.name)
        settings = attrs.evolve(self.driver.settings, name=self.name, instance=self.instance)
        try:
            with self.scope:
                await self.bus.connect()
                self.listener.begin()
                store = await open_store(settings, self.bus)
                self.service = Service(settings, self.bus, store, listener=self.listener)
                await self.service.run()
        except Exception as error:  # noqa: BLE001 - it is what the process ends with
            # What comes out of a killed process is nobody's business: it could not say so.
            if not self.bus.dead:
                trace.add("fails", self.name, detail=_unwrapped(error))
        finally:
            self.over.set()
            if not self.bus.dead:
                trace.add("ends", self.name)
                self.bus.die(keep=1_000_000)
                self.listener.die(keep=0)
                self.driver.ended()

    def kill(self) -> None:
        """kill -9: in this very moment, wherever it is."""
        if self.alive:
            self.driver.trace.add("killed", self.name)
            self.bus.die(keep=self.driver.world.rng.choice((0, 1, 1_000_000)))
            self.listener.die(keep=0)
            self.driver.freezer.thaw(self)
            self.scope.cancel()

    def pause(self) -> None:
        """SIGSTOP: in this very moment, wherever it is."""
        if self.alive and not self.paused:
            self.driver.trace.add("paused", self.name)
            self.bus.freeze()
            self.listener.freeze()
            self.driver.freezer.freeze(self)

    def go_on(self) -> None:
        """SIGCONT."""
        if self.alive and self.paused:
            self.driver.trace.add("goes on", self.name)
            self.driver.freezer.thaw(self)
            self.bus.thaw()
            self.listener.thaw()

    @property
    def paused(self) -> bool:
        """Whether it stands still."""
        return self.bus.frozen

    def holds(self, build: str) -> bool:
        """Tell whether it has a build, or is about to."""
        return self.service is not None and self.service.roster.holds(build)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return not self.over.is_set() and not self.bus.dead


def _unwrapped(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return repr(error)
