"""A loop that is stuck: that is interrupted, or ends the process; and a second signal always does."""

import sys
import time
from pathlib import Path
from signal import SIGINT, SIGPROF, SIGTERM

import pytest

from integration.builds import build, chain, component, held
from integration.conftest import World, WorldFactory
from integration.harness import Process, Scheduler, within
from scheduler.recovery.crash_loops import MOST_HANGS
from scheduler.runtime.watchdog import EXIT_HUNG

pytestmark = pytest.mark.integration

QUARANTINED = "build quarantined: its log is left untouched, and it is not resumed"
SCRIPT = str(Path(__file__).with_name("stuck.py"))


class StuckScheduler(Scheduler):
    """The service of ``stuck.py``."""

    def __init__(self, world: World, shorter: float, store: str = "memory") -> None:
        variables = {
            "NATS_URL": world.server.url,
            "SCHEDULER_STORE": store,
            "SCHEDULER_LOG_LEVEL": "debug",
        }
        Process.__init__(self, sys.executable, SCRIPT, str(shorter), env=variables)


def start(world: World, shorter: float = 5.0, store: str = "memory") -> Scheduler:
    scheduler = world.started(StuckScheduler(world, shorter, store))
    scheduler.await_log("ready")
    return scheduler


@pytest.mark.parametrize("kind", ["python", "regex"])
def test_the_hang_of_one_build_fails_that_one_and_no_other(world: World, kind: str) -> None:
    """What is in flight is awaited; the error names the component and the place."""
    scheduler, connectors, submitter = start(world), world.connectors(), world.submitter()
    healthy = chain(held("vpc::1", "later"), component("net::1"))
    changes = held("vpc::1", "later"), component("vpc::2"), component(f"{kind}::1")
    hanging = build(*changes, edges=f"vpc::2 {kind}::1")
    submitter.accepted(healthy)
    submitter.accepted(hanging)
    assert scheduler.await_log("a build holds the scheduler up: it is interrupted")["build"] == hanging["id"]
    connectors.release("later")
    report = submitter.failed(hanging)
    assert f"{kind}::1: it held the scheduler up" in report["error"]
    assert {"python": "in_python (stuck.py", "regex": "fullmatch"}[kind] in report["error"]
    assert {one["_component_id"]: one["_state"] for one in report["changes"]} == {
        "vpc::1": "completed",
        "vpc::2": "completed",
        f"{kind}::1": "waiting",
    }
    submitter.done(healthy)
    scheduler.end()


@pytest.mark.parametrize("kind", ["python", "regex"])
def test_a_second_signal_ends_it_though_the_loop_is_stuck(world: World, kind: str) -> None:
    """Within a second, with 128 and a signal's number."""
    world.connectors()
    submitter = world.submitter()

    def stop() -> float:
        scheduler = start(world, shorter=0.1)
        submitter.accepted(build(component(f"{kind}::1")))
        scheduler.await_log("build started")
        scheduler.send(SIGTERM)
        code, seconds = scheduler.stop(SIGINT)
        # Of two that are pending the one with the smaller number comes first.
        assert code in {128 + SIGINT, 128 + SIGTERM}
        scheduler.check_log()
        return seconds

    within(1, stop)


def test_what_cannot_be_interrupted_ends_the_process(world: World) -> None:
    """With an exit code of its own, and the build named."""
    scheduler, submitter = start(world), world.submitter()
    hanging = build(component("stubborn::1"))
    submitter.accepted(hanging)
    assert scheduler.wait() == EXIT_HUNG
    end = scheduler.await_log("a build holds the scheduler up and cannot be interrupted: the process ends")
    assert end["build"] == hanging["id"]
    assert "stubborn (stuck.py" in end["where"]


def test_a_build_that_processes_hang_over_is_left_alone_in_the_end(start_world: WorldFactory) -> None:
    """With the durable store; meanwhile and afterwards the others go on."""
    world = start_world(jetstream=True)
    connectors, submitter = world.connectors(), world.submitter()
    healthy, hanging = build(held("vpc::1", "later")), build(component("stubborn::1"))
    scheduler = start(world, store="jetstream")
    submitter.accepted(healthy)
    connectors.await_requests(healthy["id"], "vpc::1")
    submitter.accepted(hanging)
    for number in range(MOST_HANGS):
        if number:
            scheduler = start(world, store="jetstream")
        assert scheduler.wait() == EXIT_HUNG
        scheduler.await_log("it is on record that the process hung over this build", build=hanging["id"])
    connectors.release("later")
    scheduler = start(world, store="jetstream")
    scheduler.await_log(QUARANTINED, build=hanging["id"], reason="hung over it")
    submitter.done(healthy)
    scheduler.end()


def test_what_keeps_even_the_watchdog_from_its_turn_is_ended_by_the_kernel(world: World) -> None:
    """The place is shown."""
    scheduler, submitter = start(world, shorter=10), world.submitter()
    submitter.accepted(build(component("c::1")))
    assert scheduler.wait() == SIGPROF
    assert "in in_c" in scheduler.errors


def test_a_stuck_loop_is_no_dead_process(world: World) -> None:
    """Who asks whether it is there is answered once, and soon."""
    scheduler, submitter = start(world, shorter=0.1), world.submitter()
    scheduler.await_log("presence is answered by a thread of its own")
    submitter.accepted(build(component("python::1")))
    scheduler.await_log("build started")

    def ask() -> float:
        began = time.monotonic()
        assert len(submitter.client.request_many("$SRV.PING.scheduler", 1)) == 1
        return time.monotonic() - began

    # The loop is stuck for a hundred times as long.
    within(0.5, ask)
