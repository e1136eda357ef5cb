"""Shares of several instances, with losses, repeats, pauses and deaths: no limit is ever passed."""

import random
from collections.abc import Callable

import pytest
from attrs import define, field
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scheduler.fleet.ledger import ShareLedger
from scheduler.fleet.shares import Situation, Stake
from scheduler.limiter import RateLimit, Use

VPC = "vpc.create.*"
RATE = "vpc.create.*/s"
LIMIT = 3


@define(eq=False)
class Build:
    """A build: whose it is by its log, and its requests."""

    owner: str
    requests: set[int] = field(factory=set)
    """Requests that its log has as in flight: some may have ended, unseen by its owner."""


@define(eq=False)
class Process:
    """An instance."""

    name: str
    stake: Stake
    alive: bool = True
    """Whether the process runs."""
    paused: bool = False
    """Whether it stands still, with all that it believes."""
    fresh: bool = True
    """Whether it may send, as far as its own lease says."""
    builds: dict[int, set[int]] = field(factory=dict)
    """Builds that it believes to own, with the requests that have its slots."""
    covering: set[str] = field(factory=set)
    """Instances that it takes over from now."""

    @property
    def used(self) -> int:
        return sum(map(len, self.builds.values()))


class World:
    """The document, the logs, the connectors and the processes; every step is one of chance."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.ledger, self.revision = ShareLedger(), 0
        self.history = [(self.ledger, 0)]
        self.late: list[tuple[ShareLedger, int]] = []
        """Writes that may still be stored, with the revision that they expect."""
        self.processes: dict[str, Process] = {}
        self.live: set[str] = set()
        self.builds: dict[int, Build] = {}
        self.real: set[int] = set()
        """Requests that connectors work at."""
        self.count = 0
        self.now = 0.0
        for _ in range(2):
            self.start()

    def fresh_id(self) -> int:
        self.count += 1
        return self.count

    def start(self) -> None:
        if len(self.live) < 4:
            name = f"p{self.fresh_id()}"
            self.processes[name] = Process(name, Stake(name, {VPC: LIMIT}))
            self.live.add(name)

    # ---- what happens to processes

    def running(self) -> list[Process]:
        return [one for one in self.processes.values() if one.alive and not one.paused]

    def kill(self, one: Process) -> None:
        one.alive = False
        self.live.discard(one.name)

    def pause(self, one: Process) -> None:
        """Stand still until the lease has run out for the others."""
        one.paused = True
        self.live.discard(one.name)

    def cut_off(self, one: Process) -> None:
        """Notice that the lease ran out."""
        one.fresh = False
        self.live.discard(one.name)
        one.stake.suspend()

    def come_back(self, one: Process) -> None:
        if one.paused:
            # What is overdue is noticed before anything else.
            one.paused = False
            one.stake.suspend()
        one.fresh = True
        self.live.add(one.name)

    def notice(self, one: Process) -> None:
        """Find that builds were taken over: the slots of their requests are given back, after that."""
        lost = [build for build in one.builds if self.builds[build].owner != one.name]
        if lost:
            one.stake.suspend()
            for build in lost:
                del one.builds[build]

    # ---- requests

    def send(self, one: Process) -> None:
        if not one.fresh or one.used >= one.stake.capacity(VPC):
            return
        mine = [build for build in one.builds if self.builds[build].owner == one.name]
        if not mine or self.chance.random() < 0.3:
            mine.append(self.fresh_id())
            self.builds[mine[-1]] = Build(one.name)
            one.builds[mine[-1]] = set()
        build, request = self.chance.choice(mine), self.fresh_id()
        one.builds[build].add(request)
        self.builds[build].requests.add(request)
        self.real.add(request)
        assert len(self.real) <= LIMIT, "above the limit"

    def end_of(self, one: Process) -> None:
        """A connector is done; whose the request is may not be noticed."""
        if self.real:
            self.real.discard(self.chance.choice(sorted(self.real)))

    def reply(self, one: Process) -> None:
        """Hear of requests that have ended; the slot is free before the log has it."""
        for build, requests in one.builds.items():
            for request in sorted(requests - self.real):
                if self.chance.random() < 0.7:
                    requests.discard(request)
            # What it has just taken over is not counted yet.
            mine = self.builds[build].owner == one.name and not one.covering
            if mine and self.chance.random() < 0.5:
                self.builds[build].requests &= requests

    # ---- the document

    def read(self, one: Process) -> None:
        old = self.chance.random() < 0.1
        one.stake.read(*(self.chance.choice(self.history) if old else (self.ledger, self.revision)))

    def write(self, one: Process) -> None:
        if not one.fresh:
            return
        if self.chance.random() < 0.5:
            self.read(one)
        stake = one.stake
        waiting = self.chance.choice([0, 0, 1, 9])
        # As a look at the logs says it, now or earlier; nobody dead gets another build.
        owners = {build.owner for build in self.builds.values() if build.requests}
        gone = {name for name in stake.ledger.holders if name not in self.live and name not in owners}
        live = set(self.live)
        if self.chance.random() < 0.2:
            live -= {self.chance.choice(sorted(self.processes))}
        draft = stake.plan(
            Situation(self.now, {VPC: Use(one.used, waiting)}, live, (), {name: {VPC} for name in gone}, gone)
        )
        if draft is None:
            return
        stake.send(draft)
        outcome = self.chance.random()
        if outcome < 0.7:
            if self.store(draft, stake.revision):
                stake.stored(self.revision)
        elif outcome < 0.85:
            self.store(draft, stake.revision)
        else:
            self.late.append((draft, stake.revision))

    def store(self, draft: ShareLedger, expected: int) -> bool:
        if expected != self.revision:
            return False
        self.ledger, self.revision = draft, self.revision + 1
        self.history = [*self.history[-5:], (draft, self.revision)]
        return True

    def arrive_late(self, one: Process) -> None:
        if self.late:
            self.store(*self.late.pop(self.chance.randrange(len(self.late))))

    # ---- taking over

    def take(self, one: Process) -> None:
        """Begin to take over, append, count, and end; each is a step of its own."""
        stake = one.stake
        if not one.fresh:
            return
        dead = sorted(
            {build.owner for build in self.builds.values() if build.owner not in self.live} - {one.name}
        )
        if not one.covering:
            if dead:
                # The document is read before that: one that does not stand there holds nothing.
                one.stake.read(self.ledger, self.revision)
                owner = self.chance.choice(dead)
                one.covering.add(owner)
                stake.taking[owner] = 1
            return
        (owner,) = one.covering
        if not stake.covers(owner):
            return
        mine = [
            number
            for number, build in self.builds.items()
            if build.owner == owner and owner not in self.live and number not in one.builds
        ]
        if mine and self.chance.random() < 0.8:
            number = self.chance.choice(mine)
            self.builds[number].owner = one.name
            one.builds[number] = set()
            return
        for number, build in self.builds.items():
            # The log is read after the append: what it has in flight takes slots.
            if build.owner == one.name:
                one.builds.setdefault(number, set()).update(build.requests)
        one.covering.clear()
        del stake.taking[owner]


STEPS: list[tuple[Callable[[World, Process], None], int]] = [
    (World.send, 90),
    (World.end_of, 40),
    (World.reply, 60),
    (World.read, 40),
    (World.write, 120),
    (World.arrive_late, 10),
    (World.take, 60),
    (World.notice, 30),
    (World.kill, 1),
    (World.pause, 2),
    (World.cut_off, 2),
]


def run_world(chance: random.Random, steps: int) -> World:
    world = World(chance)
    does, weights = zip(*STEPS, strict=True)
    for _ in range(steps):
        world.now += 0.3
        running = world.running()
        if running:
            chance.choices(does, weights)[0](world, chance.choice(running))
        away = [one for one in world.processes.values() if one.alive and (one.paused or not one.fresh)]
        if away and chance.random() < 0.1:
            world.come_back(chance.choice(away))
        if chance.random() < 0.03 or not running:
            world.start()
    return world


@given(st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_no_more_requests_are_in_flight_than_the_limit_allows(seed: int) -> None:
    """Whatever is lost, repeated, paused or killed: it is looked at with each request that is sent."""
    run_world(random.Random(seed), 600)


@given(st.integers(0, 2**32))
@example(265061549)
@settings(max_examples=50, deadline=None)
def test_nothing_is_lost_for_good(seed: int) -> None:
    """Once all is quiet, and what the dead had was taken over, those that want it have the whole limit."""
    world = run_world(random.Random(seed), 200)
    chance = world.chance
    for one in list(world.processes.values()):
        if one.alive:
            world.come_back(one)
    world.start()
    world.real.clear()
    world.late.clear()
    running = world.running()
    for _ in range(40 * len(running)):
        one = chance.choice(running)
        world.now += 0.3
        world.notice(one)
        world.take(one)
        one.builds = {build: set() for build in one.builds}
        for build in world.builds.values():
            if build.owner == one.name:
                build.requests.clear()
        world.write(one)
    for one in running:
        one.covering.clear()
        one.stake.taking.clear()
    most, served = 0, set()
    for _ in range(60):
        for one in running:
            world.now += 0.3
            one.stake.read(world.ledger, world.revision)
            gone = {name for name in world.ledger.holders if name not in world.live}
            draft = one.stake.plan(
                Situation(world.now, {VPC: Use(0, 9)}, world.live, (), {name: {VPC} for name in gone}, gone)
            )
            if draft is not None:
                one.stake.send(draft)
                if world.store(draft, one.stake.revision):
                    one.stake.stored(world.revision)
            most = max(most, sum(one.stake.capacity(VPC) for one in running))
            served |= {one.name for one in running if one.stake.capacity(VPC)}
    # Where more want a unit than there are, one or the other is always on its way to the next.
    assert most == LIMIT or len(running) > LIMIT
    assert served == {one.name for one in running}
    assert world.ledger.holders.keys() == served, "units are kept for one that is dead"
    assert not any(holder.over for holder in world.ledger.holders.values()), "units are kept for no request"


@given(st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_no_more_starts_are_within_a_period_than_the_rate_allows(seed: int) -> None:
    """Units of a rate change hands among instances, each by its own clock, and are used at once."""
    chance = random.Random(seed)
    rate, ledger, revision, now = 4, ShareLedger(), 0, 0.0
    names = ("a", "b", "c")
    stakes = {name: Stake(name, {RATE: rate}) for name in names}
    counters = {name: RateLimit(RATE, 0, 1.0) for name in names}
    offsets = {name: chance.uniform(0.0, 1e6) for name in names}
    for counter in counters.values():
        counter.whole = rate
    starts: list[float] = []
    for _ in range(600):
        now += chance.choice([0.0, 0.01, 0.1, 0.5])
        name = chance.choice(names)
        stake, counter, clock = stakes[name], counters[name], now + offsets[name]
        if chance.random() < 0.6:
            counter.count = stake.capacity(RATE)
            if counter.room(clock):
                counter.take(clock)
                starts.append(now)
                assert sum(start > now - 1.0 for start in starts) <= rate
            continue
        stake.read(ledger, revision)
        use = Use(counter.used(clock), chance.choice([0, 1, 9]))
        draft = stake.plan(Situation(clock, {RATE: use}, names))
        if draft is not None:
            stake.send(draft)
            counter.count = stake.capacity(RATE)
            ledger, revision = draft, revision + 1
            stake.stored(revision)


@pytest.mark.parametrize("seed", range(3))
def test_the_worlds_are_not_idle(seed: int) -> None:
    """Requests are sent, builds taken over and processes killed in them."""
    world = run_world(random.Random(seed), 2_000)
    assert world.revision > 100
    assert len(world.processes) > 4
    assert world.count > 50
