"""A fleet under fire: its processes and its brokers are killed, stopped and restarted while builds run.

How long builds wait for their next owner is printed; ``pytest -s`` shows it.
"""

import math
import os
import random
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import pytest
from nats.errors import NoRespondersError
from support.brokers import NatsServer
from support.clusters import Cluster, cluster

from integration.builds import component
from integration.durable.conftest import SceneFactory
from integration.durable.scene import SEED, Scene, check_text
from integration.durable.shapes import line, plain
from integration.durable.shared import JSON, held
from integration.durable.siege import LATENCY, PACE, Siege
from integration.durable.takeovers import STREAMS, percentiles, waits
from integration.harness import Client, Scheduler

pytestmark = [pytest.mark.integration, pytest.mark.long]

BUILDS = int(os.environ.get("DURABLE_BUILDS", "300"))
"""Builds that come in while processes are killed."""
_BETWEEN_KILLS = 10.0
KILLS = int(os.environ.get("DURABLE_KILLS", "6"))
"""Processes of the fleet that are killed, one after another."""
TRY = 2.0
"""Seconds that a submitter waits for an answer before it asks again, as our client does."""


def show(what: str, seconds: Sequence[float]) -> None:
    """Print percentiles."""
    assert seconds, f"nothing was taken over: {what}"
    p50, p99, most = percentiles(seconds)
    figures = f"p50 {p50:.2f} s, p99 {p99:.2f} s, max {most:.2f} s"
    print(f"take-over after {what}: {len(seconds)} builds, {figures}")


def stop_all(services: Sequence[Scheduler]) -> None:
    """End all in order."""
    for service in services:
        code, _ = service.stop()
        check_text(service)
        assert code == 0, service.errors


@pytest.mark.siege
@pytest.mark.timeout(max(120, 6 * KILLS))
def test_schedulers_of_a_fleet_are_killed_again_and_again(start_scene: SceneFactory) -> None:
    """Any of three each time: every build ends once, and nothing is sent twice but what may not have left.

    Two of them come back under their names, and have their builds at once; the third is a new one each time.
    """
    randomness = random.Random(f"fleet {SEED}")
    scene = start_scene({"latency": LATENCY, "on": "mixed"})
    siege = Siege(scene, randomness, (24, 40), builds=20)
    names = ["first", "second", "third-0"]
    killed: dict[str, dict[str, float]] = {"kill -9 and a restart": {}, "kill -9": {}}

    def start(name: str, *, ready: bool) -> Scheduler:
        return scene.start(*PACE, ready=ready, env={"SCHEDULER_INSTANCE": name})

    live = [start(name, ready=True) for name in names]

    def replace() -> None:
        place = randomness.randrange(3)
        instance = scene.instance(names[place], 0.5)
        scene.kill(live[place])
        killed["kill -9" if place == 2 else "kill -9 and a restart"][instance] = scene.kills[-1]
        if place == 2:
            names[place] = f"third-{len(scene.kills)}"
        live[place] = start(names[place], ready=False)

    siege.run(KILLS, [replace])
    siege.check()
    for service in live:
        service.await_log("ready")
    for how, ends in killed.items():
        if ends:
            show(how, waits(scene.services, ends))
    stop_all(live)


class Connectors:
    """Connectors that sit at two of three brokers, so that what they have is not lost with the third."""

    def __init__(self, scene: Scene, brokers: Cluster) -> None:
        self._scene = scene
        self._brokers = brokers
        self._recorders = [scene.recorder]

    def leave(self, victim: NatsServer) -> None:
        """Have them sit at the others."""
        old = self._recorders
        self._recorders = [self._scene.start_recorder(server) for server in self._brokers.others(victim)]
        for recorder in old:
            recorder.drain()
            assert not recorder.errors
            recorder.close()
        self._scene.recorder = self._recorders[0]


def killed(victim: NatsServer) -> None:
    """Kill a broker, and start it again."""
    victim.kill()
    time.sleep(3)
    victim.start()


def hung(victim: NatsServer) -> None:
    """Stop a broker for longer than a lease lasts."""
    victim.pause()
    time.sleep(18)
    victim.resume()


def restarted(victim: NatsServer) -> None:
    """Restart a broker in order."""
    victim.stop()
    time.sleep(1)
    victim.start()


@pytest.mark.siege
@pytest.mark.parametrize("fault", [killed, hung, restarted])
def test_each_of_three_brokers_fails_in_turn(
    start_scene: SceneFactory, fault: Callable[[NatsServer], None]
) -> None:
    """Three schedulers: every build is reported once, and no component waits for its timeout."""
    with ExitStack() as stack:
        brokers = stack.enter_context(cluster())
        scene = start_scene(
            {"latency": [0.1, 0.5], "on": "mixed"}, brokers=brokers, env={"SCHEDULER_REPLICAS": "3"}
        )
        services = [scene.start(env={"SCHEDULER_INSTANCE": name}) for name in ("one", "two", "three")]
        connectors = Connectors(scene, brokers)
        for number, victim in enumerate(brokers.servers):
            for stream in STREAMS:
                brokers.await_current(stream)
            connectors.leave(victim)
            documents = [plain(f"{number}-{count}", 24, width=3) for count in range(34)]
            scene.submit(*documents)
            began = time.monotonic()
            with scene.outage():
                fault(victim)
                brokers.await_api()
            seconds = time.monotonic() - began
            print(f"{fault.__name__} {victim.config['server_name']}: back after {seconds:.1f} s")
        scene.settle(60)
        # A copy that lags behind would be read as a log without its end.
        for stream in STREAMS:
            brokers.await_current(stream)
        scene.check(watched=False)
        stop_all(services)


class Insistent:
    """Submits builds all the time, each again until it is answered, as our client does; ``most`` in all."""

    def __init__(self, scene: Scene, client: Client, most: float = math.inf) -> None:
        self._scene = scene
        self._most = most
        self._client = client
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ended = threading.Event()
        self.refusals: list[JSON] = []
        self.repeated = 0
        """Number of tries that got no answer."""
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether the last one is accepted."""
        return not self._thread.is_alive()

    def end(self) -> None:
        """Submit no more."""
        self._ended.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        number = 0
        while number < self._most and not self._ended.wait(0.05):
            number += 1
            names = [f"vm::{place}" for place in range(6)]
            self._submit(line(f"steady-{number}", *(component(name) for name in names)))

    def _submit(self, document: JSON) -> None:
        while True:
            try:
                answer = self._client.request(document["action"], document, TRY)
            except (NoRespondersError, TimeoutError):
                self.repeated += 1
                continue
            if answer["status"] != "accepted":
                self.refusals.append(answer)
            self._scene.submitted[document["id"]] = document
            return


def test_all_schedulers_are_restarted_while_builds_come_in(start_scene: SceneFactory) -> None:
    """No build is refused, each is done, and those of one that stops are with another one within 2 s (p99).

    In the first round a new one is there before the old one stops; in the second it comes afterwards.
    """
    scene = start_scene({"latency": [0.2, 0.5], "on": "mixed"})
    live = {name: scene.start(env={"SCHEDULER_INSTANCE": name}) for name in ("a-0", "b-0", "c-0")}
    client = Client(scene.server.url)
    scene.stack.callback(client.close)
    steady = Insistent(scene, client)
    ends: dict[str, float] = {}
    durations = []

    def stop(name: str) -> None:
        service = live.pop(name)
        instance = scene.instance(name)
        ends[instance] = time.time()
        code, seconds = service.stop()
        durations.append(seconds)
        check_text(service)
        assert code == 0, service.errors

    def start(name: str) -> None:
        live[name] = scene.start(env={"SCHEDULER_INSTANCE": name})

    for name in list(live):
        time.sleep(2)
        start(name.replace("0", "1"))
        stop(name)
    for name in list(live):
        time.sleep(2)
        stop(name)
        start(name)
    time.sleep(1)
    steady.end()
    scene.settle()
    assert not steady.refusals
    scene.check()
    found = waits(scene.services, ends)
    show("SIGTERM", found)
    print(f"{len(scene.submitted)} builds, {steady.repeated} tries without an answer")
    print(f"the stops took {[round(one, 2) for one in durations]} s")
    assert found[int(0.99 * (len(found) - 1))] < 2
    stop_all(list(live.values()))


@pytest.mark.siege
@pytest.mark.timeout(180 + BUILDS // 4)
def test_thousands_of_builds_survive_a_kill_every_ten_seconds(start_scene: SceneFactory) -> None:
    """One of three schedulers each time: none is lost, none is refused, and nothing is done twice."""
    randomness = random.Random(f"thousands {SEED}")
    scene = start_scene({"latency": [0.2, 0.5], "on": "mixed"})
    names = ("one", "two", "three")
    live = {name: scene.start(env={"SCHEDULER_INSTANCE": name}) for name in names}
    client = Client(scene.server.url)
    scene.stack.callback(client.close)
    steady = Insistent(scene, client, BUILDS)
    ends: dict[str, float] = {}
    while not steady.done:
        time.sleep(_BETWEEN_KILLS)
        victim = randomness.choice(names)
        instance = scene.instance(victim, 2)
        scene.kill(live[victim])
        ends[instance] = scene.kills[-1]
        live[victim] = scene.start(ready=False, env={"SCHEDULER_INSTANCE": victim})
    scene.settle(120)
    assert not steady.refusals
    assert len(scene.submitted) == BUILDS
    scene.check()
    print(f"{BUILDS} builds, {len(ends)} kills, {steady.repeated} tries without an answer")
    show("kill -9 and a restart", waits(scene.services, ends))
    for service in live.values():
        service.await_log("ready")
    stop_all(list(live.values()))


def test_an_owner_that_stands_still_writes_nothing_when_it_goes_on(start_scene: SceneFactory) -> None:
    """It is stopped for 20 s with requests queued and in flight; none is sent a third time."""
    scene = start_scene({"latency": [0.05, 0.3], "on": "mixed"})
    pace = ("--max-in-flight", "10")
    first = scene.start(*pace, env={"SCHEDULER_INSTANCE": "first"})
    stopped = scene.instance("first")
    documents = [plain(f"moving-{number}", 200, width=20) for number in range(5)]
    waiting = [line(f"held-{number}", held("vpc::1", "go"), component("vm::1")) for number in range(3)]
    scene.submit(*waiting, *documents)
    scene.recorder.out.count(60, lambda text: '"answer"' in text)
    second = scene.start(*pace, env={"SCHEDULER_INSTANCE": "second"})
    next_one = scene.instance("second")
    began = time.time()
    with scene.outage():
        first.send(signal.SIGSTOP)
        time.sleep(20)
        first.send(signal.SIGCONT)
        first.await_log("the lease of this instance is renewed")
    scene.recorder.release("go")
    scene.settle()
    scene.check()
    owners: dict[str, list[str]] = defaultdict(list)
    for logged in scene.reader.log():
        owners[logged.build].append(logged.record["instance"])
    for build, instances in owners.items():
        assert instances.index(next_one) > 0, build
        assert stopped not in instances[instances.index(next_one) :], build
    tries: dict[tuple[str, str], list[str]] = defaultdict(list)
    for request in scene.recorder.requests():
        tries[request["build"], request["component"]].append(request["attempt"])
    assert all(len(attempts) <= 2 and len(set(attempts)) == 1 for attempts in tries.values())
    print(f"{sum(len(attempts) > 1 for attempts in tries.values())} of {len(tries)} requests were sent twice")
    show("SIGSTOP", waits([second], {stopped: began}))
    stop_all([first, second])
