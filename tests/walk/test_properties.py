"""Random builds, random connectors: what holds for every one of them, and against a naive reference."""

import heapq
import random
from collections import Counter
from collections.abc import Sequence

import structlog
import trio
from attrs import frozen
from hypothesis import event, given, settings
from hypothesis import strategies as st
from support.fakes import JSON, FakeStore, Reply, Trace, World, change, document, encode, open_world, states
from support.walks import Run
from trio.testing import MockClock

from scheduler.dispatch.slots import Slots
from scheduler.stores import Store
from scheduler.stores.memory import MemoryStore

WAYS = ("subject", "reply", "both")


@frozen
class Case:
    """A build, and what its connectors do. Everything else follows from the seed."""

    edges: tuple[tuple[int, int], ...]
    outcomes: tuple[str, ...]
    """Of each component: completed, errored, silent (until it times out) or instant."""
    seed: int

    @property
    def names(self) -> list[str]:
        return [f"c{number}" for number in range(len(self.outcomes))]

    def chance(self, *key: object) -> random.Random:
        return random.Random(f"{self.seed}/{key}")

    def latency(self, name: str) -> float:
        """Seconds until it is answered; with a random fraction, so that no two things tie."""
        if self.outcome(name) == "instant":
            return 0.0
        return self.timeout(name) if self.outcome(name) == "silent" else 0.1 + self.chance(name).random() * 5

    def timeout(self, name: str) -> float:
        return 20 + self.chance("timeout", name).random()

    def outcome(self, name: str) -> str:
        return self.outcomes[int(name[1:])]

    def document(self) -> JSON:
        changes = [
            change(
                name,
                action="none" if self.outcome(name) == "instant" else "create",
                _timeout=self.timeout(name),
            )
            for name in self.names
        ]
        return document(changes, [(f"c{source}", f"c{target}") for source, target in self.edges])

    def script(self, component: JSON) -> Sequence[Reply]:
        """The reply, and after it duplicates that may contradict it."""
        name = component["_component_id"]
        chance = self.chance("reply", name)
        if self.outcome(name) == "silent":
            return []
        first = Reply(self.outcome(name), self.latency(name), chance.choice(WAYS), {"error": "broken"})
        again = [
            Reply(chance.choice(["completed", "errored"]), self.latency(name) + chance.random() * 3)
            for _ in range(chance.choice([0, 0, 1, 2]))
        ]
        return [first, *again]

    async def make_noise(self, world: World) -> None:
        """Replies that concern nobody, or look as if they did."""
        chance = self.chance("noise")
        while True:
            await trio.sleep(chance.random())
            name = chance.choice(self.names)
            body: JSON = {"service": "b1", "_component_id": name, "_state": "completed"}
            match chance.randrange(7):
                case 0:
                    world.bus.deliver("vpc.create.aws.done", encode({**body, "service": "b2"}))
                case 1:
                    world.bus.deliver("vpc.create.gcp.done", encode(body))
                case 2:
                    world.bus.deliver("network.create.aws.error", encode(body))
                case 3:
                    world.bus.deliver("build.create.done", encode({**body, "id": "b1"}))
                case 4:
                    world.bus.deliver("vpc.create.aws.done", encode([body]))
                case 5:
                    world.bus.deliver("vpc.create.aws.error", encode({**body, "_component_id": "other"}))
                case _:
                    world.bus.deliver(f"scheduler.reply.{chance.getrandbits(64):x}1", encode(body))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    count = draw(st.integers(1, 12))
    pairs = [(source, target) for target in range(count) for source in range(target)]
    edges = draw(st.lists(st.sampled_from(pairs), max_size=20, unique=True)) if pairs else []
    kinds = ["completed"] * 6 + ["instant"] + draw(st.sampled_from([[], ["errored"], ["errored", "silent"]]))
    outcomes = draw(st.lists(st.sampled_from(kinds), min_size=count, max_size=count))
    return Case(tuple(edges), tuple(outcomes), draw(st.integers(0, 1_000_000)))


def reference(case: Case) -> tuple[dict[str, str], str | None]:
    """The final states and the first to fail, with as many slots as one likes: a naive simulation."""
    before = {name: set[str]() for name in case.names}
    for source, target in case.edges:
        before[f"c{target}"].add(f"c{source}")
    result = dict.fromkeys(case.names, "waiting")
    first: str | None = None
    running: list[tuple[float, str]] = []
    begun: set[str] = set()
    now = 0.0
    while True:
        for name in case.names if first is None else ():
            if name not in begun and all(result[one] == "completed" for one in before[name]):
                begun.add(name)
                heapq.heappush(running, (now + case.latency(name), name))
        if not running:
            return result, first
        now, name = heapq.heappop(running)
        good = case.outcome(name) in {"completed", "instant"}
        result[name] = "completed" if good else "errored"
        if not good and first is None:
            first = name


def run(case: Case, *, slots: Slots, persisted: bool) -> Run:
    """Run a case on a clock that jumps; checks what holds for every build."""

    async def main() -> Run:
        store: Store = MemoryStore()
        if persisted:
            store = FakeStore()
            store.delay = case.chance("store").random
        async with open_world(script=case.script, slots=slots, store=store) as world:
            trace = Trace(world, case.document())
            one = Run(world, case.document())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(case.make_noise, world)
                with trio.fail_after(10_000):
                    await one.go()
                nursery.cancel_scope.cancel()
            one.check_end()
            if persisted:
                trace.check()
            _check_no_start_after_an_error(case, one, trace)
            return one

    with structlog.testing.capture_logs():
        return trio.run(main, clock=MockClock(autojump_threshold=0))


def _check_no_start_after_an_error(case: Case, one: Run, trace: Trace) -> None:
    assert max(Counter(trace.sent).values(), default=0) <= 1
    seen = [state.value for _, state, _ in one.observed]
    if "errored" in seen:
        assert "running" not in seen[seen.index("errored") :], "sent after an error was seen"
    final = states(one.done)
    assert set(trace.sent) == {
        name for name, state in final.items() if state != "waiting" and case.outcome(name) != "instant"
    }
    assert "running" not in final.values()
    assert ("error" in one.done) == (set(final.values()) != {"completed"})


@given(cases())
@settings(max_examples=150)
def test_with_slots_to_spare_every_build_ends_as_the_reference_says(case: Case) -> None:
    """Each component's final state, and the first cause, are those of a naive simulation."""
    expected, first = reference(case)
    one = run(case, slots=Slots(), persisted=False)
    event(f"fails: {first is not None}")
    assert states(one.done) == expected
    assert one.done.get("error", "").partition(":")[0] == (first or "")


@given(cases(), st.integers(1, 4), st.integers(1, 3), st.sampled_from([1_000, 2_900, 4_000, 1_000_000]))
@settings(max_examples=150)
def test_with_few_slots_and_a_slow_store_every_promise_holds(
    case: Case, per_instance: int, per_build: int, max_bytes: int
) -> None:
    """Order, one request each, none after an error, everything settles, one report, slots given back.

    Also where there is room for the bytes of one request at a time, or of few.
    """
    slots = Slots(per_instance=per_instance, per_build=per_build, max_bytes=max_bytes)
    one = run(case, slots=slots, persisted=True)
    if set(case.outcomes) <= {"completed", "instant"}:
        assert set(states(one.done).values()) == {"completed"}
    else:
        failed = {name for name, state in states(one.done).items() if state == "errored"}
        assert all(case.outcome(name) in {"errored", "silent"} for name in failed)


@given(st.lists(cases(), min_size=2, max_size=5))
@settings(max_examples=40)
def test_builds_beside_one_another_end_as_they_would_alone(several: list[Case]) -> None:
    """Builds that share everything but their ids, with slots to spare, do not change one another's end."""

    async def main() -> None:
        scripts = {f"build-{number}": case for number, case in enumerate(several)}

        def script(component: JSON) -> Sequence[Reply]:
            return scripts[component["service"]].script(component)

        async with open_world(script=script, store=MemoryStore()) as world:
            runs = [Run(world, {**case.document(), "id": build}) for build, case in scripts.items()]
            with trio.fail_after(10_000):
                async with trio.open_nursery() as nursery:
                    for one in runs:
                        nursery.start_soon(one.go)
            for one, case in zip(runs, several, strict=True):
                assert states(one.done) == reference(case)[0]
            assert world.slots.taken == 0

    with structlog.testing.capture_logs():
        trio.run(main, clock=MockClock(autojump_threshold=0))
