"""Faults of a simulated world, and their ends."""

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio
from support.fake_jetstream import NO_ROOM, UNAVAILABLE

from scheduler.errors import BusClosed
from scheduler.fleet.bucket import STREAM
from scheduler.jetstream.streams import REPLIES
from simulation.processes import Process
from simulation.scenario import MOMENTS, Fault
from simulation.vanishing import VANISHING

if TYPE_CHECKING:
    from simulation.driver import Driver

_IS_REFUSED = 7.0
"""Seconds within which a process is refused whose name another one has."""
_REPLACES = 7.0
"""Seconds in which a process replaces another one of its name that stands still."""
_COUNTS_AS_GONE = 11.0
"""Seconds of silence after which another scheduler takes a process for gone."""


class Faults:
    """Causes the faults of a scenario; a fault of the kind ``some thing`` is the method ``_some_thing``."""

    def __init__(self, driver: "Driver") -> None:
        self._driver = driver
        self._world = driver.world
        self._trace = driver.trace

    async def cause(self, fault: Fault) -> None:
        """Make the fault happen when it is due; return when it has ended."""
        await trio.sleep_until(fault.at)
        self._trace.add("fault begins", detail=(fault.kind, round(fault.seconds, 3), fault.number))
        name = f"_{fault.kind.replace(' ', '_')}"
        until = min(fault.seconds, max(0.01, self._driver.scenario.heals_at - trio.current_time()))
        if fault.kind in VANISHING:
            await VANISHING[fault.kind](self._driver, fault, until)
        else:
            await getattr(self, name)(fault, until)

    def heal(self) -> None:
        """End all faults; from now on there are none."""
        broker = self._world.broker
        if not broker.up:
            broker.restart()
        if broker.jetstream.silent:
            broker.regain_quorum()
        for server in list(broker.gone):
            broker.regain_server(server)
        broker.jetstream.leaderless.clear()
        broker.jetstream.refusal = None
        broker.jetstream.no_room = False
        broker.slow_disk = broker.slow_leases = 0.0
        broker.apart = None
        for process in self._driver.living():
            process.go_on()
        for job in self._driver.on_heal:
            job()
        self._trace.add("healed")
        self._driver.start_another()

    def _victim(self, number: int) -> Process | None:
        living = self._driver.living()
        return living[number % len(living)] if living else None

    async def _crash(self, fault: Fault, _: float) -> None:
        victim = self._victim(fault.number)
        if victim is not None:
            victim.kill()
        await self._restart_later(fault, victim)

    async def _crash_at(self, fault: Fault, _: float) -> None:
        """Kill it right after a step of the trace: the moments that matter are few and short."""
        await self._restart_later(fault, await self._moment(fault, lambda victim: victim.kill()))

    async def _cut_at(self, fault: Fault, _: float) -> None:
        """Cut its connection there: what it has just written is lost, or comes much later."""
        late = fault.seconds if fault.number % 2 else 0.0
        await self._moment(fault, lambda victim: self._world.cut_off(victim.bus, late))

    async def _moment(self, fault: Fault, strike: Callable[[Process], None]) -> Process | None:
        """Wait for the step of the trace that a fault is aimed at, and do it there; returns the victim."""
        moment = fault.moment or MOMENTS[fault.number % len(MOMENTS)]
        which = fault.number // len(MOMENTS) % (4 if fault.moment else 7)
        reached = trio.Event()
        add = self._trace.add
        seen = 0
        struck: Process | None = None

        def watch(kind: str, who: str = "", *args: Any, **more: Any) -> None:
            nonlocal seen, struck
            add(kind, who, *args, **more)
            if kind == moment and not reached.is_set():
                seen += 1
                if seen > which:
                    reached.set()
                    struck = self._whose(who, fault.number)
                    if struck is not None:
                        strike(struck)

        self._trace.add = watch  # type: ignore[method-assign]
        with trio.move_on_at(self._driver.scenario.heals_at):
            await reached.wait()
        reached.set()
        return struck

    def _whose(self, who: str, number: int) -> Process | None:
        """Find the process that does something, mostly, where there are several."""
        living = self._driver.living()
        mine = [process for process in living if process.name == who]
        return mine[0] if mine and number % 4 else self._victim(number)

    async def _restart_later(self, fault: Fault, victim: Process | None) -> None:
        await trio.sleep(min(fault.seconds, 5.0))
        several = self._driver.scenario.instances.number > 1
        if several and victim is not None and fault.number % 3:
            self._driver.start(victim.instance)
        else:
            self._driver.start_another()

    async def _drain(self, fault: Fault, _: float) -> None:
        victim = self._victim(fault.number)
        if victim is not None:
            await self._end(victim)
            await self._restart_later(fault, victim)

    async def _end(self, victim: Process) -> None:
        """SIGTERM, and wait."""
        self._trace.add("stopping", victim.name)
        if victim.service is None or not victim.service.ready:
            victim.kill()
        else:
            victim.service.stop()
            await victim.over.wait()

    async def _stop(self, fault: Fault, _: float) -> None:
        """SIGTERM at a step of the trace."""
        stopped: list[Process] = []
        victim = await self._moment(fault, stopped.append)
        if victim is not None:
            await self._end(victim)
            await self._restart_later(fault, victim)

    async def _rolling(self, fault: Fault, _: float) -> None:
        """All of them are stopped and started anew, one after another."""
        for victim in self._driver.living():
            if victim.alive:
                await self._end(victim)
                await trio.sleep(min(fault.seconds, 0.5))
                self._driver.start(victim.instance)
                await trio.sleep(fault.seconds)

    async def _replace(self, fault: Fault, _: float) -> None:
        """Kill one, and start another in its place at once."""
        victim = self._victim(fault.number)
        if victim is not None:
            victim.kill()
            await trio.sleep(fault.seconds / 10)
            self._driver.start(victim.instance)

    async def _twin(self, fault: Fault, _: float) -> None:
        """Start one in the place of another that works, and once more when that one stands still.

        Of one name, the first is refused, and the second takes the name.
        """
        paused = [process for process in self._driver.living() if process.paused]
        victim = paused[0] if paused else self._victim(fault.number)
        if victim is None:
            return
        self._driver.start(victim.instance)
        if paused or not victim.instance:
            return
        await self._sleep(_IS_REFUSED)
        if victim in self._driver.living() and not victim.paused:
            victim.pause()
            self._driver.start(victim.instance)
            await self._sleep(_REPLACES)
            victim.go_on()

    async def _sleep(self, seconds: float) -> None:
        """Let time pass, as long as there are faults at all."""
        await trio.sleep(min(seconds, max(0.0, self._driver.scenario.heals_at - trio.current_time())))

    async def _pause(self, fault: Fault, _: float) -> None:
        """A process stands still, right after a step of the trace or at any time; its lease may run out."""

        def strike(victim: Process) -> None:
            victim.pause()
            if fault.seconds > _COUNTS_AS_GONE and fault.number % 3 == 0:
                self._world.later.after(fault.seconds / 2, lambda: self._hang_up(victim))

        if fault.moment:
            victim = await self._moment(fault, strike)
        elif (victim := self._victim(fault.number)) is not None:
            strike(victim)
        await self._sleep(fault.seconds)
        if victim is not None:
            victim.go_on()

    def _hang_up(self, victim: Process) -> None:
        if victim.alive and victim.paused:
            self._world.hang_up(victim.bus)

    async def _partition(self, fault: Fault, until: float) -> None:
        """A process and some servers do not reach each other; mostly it is all servers."""
        victim = self._victim(fault.number)
        size = self._world.broker.size
        if victim is not None:
            servers = frozenset(range(size) if fault.number % 3 else (fault.number % size,))
            self._trace.add("partition", victim.name, detail=(sorted(servers), until))
            self._world.cut_off_from(victim.bus, servers, until)
            self._world.cut_off_from(victim.listener, servers, until)
        await trio.sleep(until)

    async def _pulled_out(self, fault: Fault, until: float) -> None:
        """A process has no connection, as the broker knows, too."""
        victim = self._victim(fault.number)
        if victim is not None:
            servers = frozenset(range(self._world.broker.size))
            for bus in (victim.bus, victim.listener):
                self._world.cut_off_from(bus, servers, until)
                self._world.hang_up(bus)
        await trio.sleep(until)

    async def _server_apart(self, fault: Fault, until: float) -> None:
        """A server and the others do not hear each other; who is connected to it stays so."""
        broker = self._world.broker
        victim = self._victim(fault.number)
        if broker.apart is None and victim is not None and not broker.gone:
            broker.apart = victim.bus.server
            self._trace.add("server apart", detail=broker.apart)
            await trio.sleep(until)
            broker.apart = None

    async def _leases_leaderless(self, _: Fault, until: float) -> None:
        """The bucket of the leases has no leader: it is neither read nor written."""
        leaderless = self._world.broker.jetstream.leaderless
        leaderless.add(STREAM)
        await trio.sleep(until)
        leaderless.discard(STREAM)

    async def _leases_late(self, fault: Fault, until: float) -> None:
        """What is written to the bucket of the leases is stored late."""
        self._world.broker.slow_leases = (0.5, 1.9, 6.0)[fault.number % 3]
        await trio.sleep(until)
        self._world.broker.slow_leases = 0.0

    async def _second(self, fault: Fault, _: float) -> None:
        """Another instance starts; the first one may go silent, for short or until it counts as gone."""
        first = self._victim(fault.number)
        self._driver.start()
        silences = (0.0, min(fault.seconds, 9.0), _COUNTS_AS_GONE + fault.seconds % 4.0)
        if first is not None and (silence := silences[fault.number % 3]):
            self._world.silence(first.bus, silence)

    async def _cut(self, fault: Fault, _: float) -> None:
        victim = self._victim(fault.number)
        if victim is not None:
            self._world.cut(victim.bus)

    async def _silence(self, fault: Fault, until: float) -> None:
        victim = self._victim(fault.number)
        if victim is not None:
            self._world.silence(victim.bus, until)

    async def _slow_reader(self, fault: Fault, _: float) -> None:
        victim = self._victim(fault.number)
        if victim is not None:
            self._world.drop_slow(victim.bus)

    async def _cut_connector(self, fault: Fault, _: float) -> None:
        self._world.cut(self._driver.connectors[fault.number % len(self._driver.connectors)].bus)

    async def _connector_dies(self, fault: Fault, until: float) -> None:
        connector = self._driver.connectors[fault.number % len(self._driver.connectors)]
        connector.die()
        await trio.sleep(until)
        # It may die again while it starts.
        with suppress(BusClosed):
            await connector.start()

    async def _cut_client(self, _: Fault, __: float) -> None:
        self._world.cut(self._driver.client)

    async def _broker(self, fault: Fault, until: float) -> None:
        broker = self._world.broker
        if not broker.up:
            return
        broker.crash()
        self._trace.add("broker dies")
        replies = broker.jetstream.streams.get("SCHEDULER_REPLIES")
        if replies is not None and fault.number % 2:
            # What an asynchronous stream had not written yet is gone.
            lost = replies.lose_tail(fault.number // 2 % 4)
            self._trace.add("replies lost", detail=[kept.sequence for kept in lost])
        await trio.sleep(until)
        if not self._world.broker.up:
            broker.restart()
            self._trace.add("broker is back")

    async def _quorum(self, _: Fault, until: float) -> None:
        broker = self._world.broker
        broker.lose_quorum()
        await trio.sleep(until)
        if broker.jetstream.silent:
            broker.regain_quorum()
        self._trace.add("quorum is back")

    async def _refusal(self, fault: Fault, until: float) -> None:
        jetstream = self._world.broker.jetstream
        jetstream.refusal = (UNAVAILABLE, NO_ROOM)[fault.number % 2]
        await trio.sleep(until)
        jetstream.refusal = None

    async def _full(self, _: Fault, until: float) -> None:
        jetstream = self._world.broker.jetstream
        jetstream.no_room = True
        await trio.sleep(until)
        jetstream.no_room = False

    async def _slow_disk(self, fault: Fault, until: float) -> None:
        self._world.broker.slow_disk = (0.2, 1.0, 6.0)[fault.number % 3]
        await trio.sleep(until)
        self._world.broker.slow_disk = 0.0

    async def _server(self, fault: Fault, until: float) -> None:
        """A server of the cluster goes, and what it led has no leader for a while."""
        broker = self._world.broker
        hangs, first, leads = fault.number % 2, fault.number // 2 % 4, fault.number // 8 % 4
        lost: list[int] = []

        def strike(victim: Process) -> None:
            server = victim.bus.server if first else victim.listener.server
            if server is None or not broker.up:
                return
            self._trace.add("server gone", victim.name, detail=(server, hangs, leads))
            lost.append(server)
            broker.lose_server(server, hangs=bool(hangs), seconds=max(until, 20.0 * hangs))
            if leads:
                broker.jetstream.leaderless.add(REPLIES)
            if leads == 1:
                broker.lose_quorum()

        await self._moment(fault, strike)
        election = 0.5 + fault.number % 100 / 25
        await trio.sleep(min(election, until))
        if lost and leads:
            broker.jetstream.leaderless.discard(REPLIES)
        if lost and leads == 1 and broker.jetstream.silent:
            broker.regain_quorum()
        await trio.sleep(until)
        for server in lost:
            broker.regain_server(server)

    async def _clock(self, fault: Fault, _: float) -> None:
        victim = self._victim(fault.number)
        if victim is not None:
            self._driver.clocks.set(victim, fault.seconds)

    async def _consumers(self, _: Fault, __: float) -> None:
        """Consumers in memory are gone, as after a change of leader."""
        self._world.broker.jetstream.restart()
