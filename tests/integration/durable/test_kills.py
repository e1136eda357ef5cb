"""The service, the broker, or both are killed with -9 at random moments while builds run."""

import random
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import pytest

from integration.durable.conftest import SceneFactory
from integration.durable.scene import SEED, Scene, passed, pause
from integration.durable.shapes import SHAPES, shaped
from integration.harness import Message

pytestmark = pytest.mark.integration

JSON = dict[str, Any]
Moment = Callable[[Scene], None]
Pace = tuple[str, ...]
"""Arguments of the next process."""
Target = Callable[[Pace], None]
"""Kills something, and starts it again."""

BUILDS = 12
LATENCY = [0.02, 0.1]
FEW = ("--max-in-flight", "2")
SOME = ("--max-in-flight", "6")
"""Requests at a time, so that builds of this size last for all the kills."""
WAIT = 3.0
"""Seconds that a moment may keep everybody waiting: what it waits for may not come any more."""


def some_builds(randomness: random.Random, least: int, most: int) -> list[JSON]:
    """Builds of every shape, half of them with all actions; some components fail in two of them."""
    builds = []
    for number, shape in zip(range(BUILDS), cycle(SHAPES), strict=False):
        size = randomness.randint(least, most)
        failing = {"instance::23": {"errors": 1}, "instance::31": {"errors": 1}} if number in {4, 9} else {}
        builds.append(
            shaped(
                f"{shape}/{number}:a@b.c",
                shape,
                size,
                randomness,
                mixed=number % 2 == 1,
                behaviours=failing,
            )
        )
    return builds


def request_lines(line: str) -> bool:
    return '"event": "request"' in line


def answer_lines(line: str) -> bool:
    return '"event": "answer"' in line


def requests(number: int) -> Moment:
    """So many requests further."""
    return lambda scene: _wait(scene.recorder.out, number, request_lines)


def answers(number: int) -> Moment:
    """So many answers further."""
    return lambda scene: _wait(scene.recorder.out, number, answer_lines)


def record(event: str) -> Moment:
    """In the breath in which a record with such an event is on its way into the log."""
    mark = f'"event":"{event}"'.encode()

    def is_such(message: Message) -> bool:
        return mark in message.data

    return lambda scene: _wait(scene.appends, 1, is_such)


def report() -> Moment:
    """In the breath in which a report goes by."""
    return lambda scene: _wait(scene.submitter.reports, 1, lambda _: True)


def start(seconds: float) -> Moment:
    """So long after the service was started: it may be connecting, reading logs, sending again."""
    return lambda _: time.sleep(seconds)


def _wait(feed: Any, number: int, test: Callable[[Any], bool]) -> None:
    passed(feed, number, test, WAIT)


def moments(randomness: random.Random, number: int) -> Iterator[tuple[str, Moment]]:
    """Random moments, with a name each."""
    events = ["started", "sent", "settled", "finished", "reported", "loading"]
    for _ in range(number):
        many, event, seconds = (
            randomness.randint(1, 25),
            randomness.choice(events),
            randomness.uniform(0.2, 1),
        )
        choices = {
            f"{many} requests": requests(many),
            f"{many} answers": answers(many),
            f"record: {event}": record(event),
            "report": report(),
            f"{seconds:.2f} s": start(seconds),
        }
        yield randomness.choices(list(choices.items()), weights=[3, 3, 4, 1, 2])[0]


def kill_all_along(scene: Scene, randomness: random.Random, kills: int, targets: list[Target]) -> int:
    """Kill at random moments; returns how often there was something left to be interrupted."""
    counted = 0
    for number, (name, moment) in enumerate(moments(randomness, kills)):
        if number % 3 == 0:
            scene.take_hold()
        moment(scene)
        pause(randomness, 0.02)
        left = len(scene.unfinished)
        counted += left > 0
        print(f"kill {number + 1}: {name}, {len(scene.recorder.records)} records, {left} builds left")
        # Where the next process is given time to take hold, it must not get through with everything.
        randomness.choice(targets)(FEW if (number + 1) % 3 == 0 else SOME)
    return counted


def check_all_ended(scene: Scene, builds: list[JSON], **options: Any) -> None:
    """Every build has ended as it should: two of them failed."""
    scene.settle(60)
    evidence = scene.check(**options)
    failed = [stored.build for stored in evidence.reports if "error" in stored.body]
    assert sorted(failed) == sorted([builds[4]["id"], builds[9]["id"]])
    scene.end()


def test_the_service_is_killed_again_and_again(start_scene: SceneFactory) -> None:
    """Every build ends once, and nothing is sent twice but what may not have left."""
    randomness = random.Random(f"service {SEED}")
    scene = start_scene({"latency": LATENCY, "on": "mixed"})
    builds = some_builds(randomness, 40, 100)
    scene.start(*SOME)
    scene.submit(*builds)
    counted = kill_all_along(scene, randomness, 29, [lambda pace: scene.restart(*pace, ready=False)])
    # The last time it is let loose.
    scene.restart()
    assert counted >= 25, "the builds ended too soon"
    check_all_ended(scene, builds)


def test_the_broker_is_killed_again_and_again(start_scene: SceneFactory) -> None:
    """With ``always`` and connectors that honour attempt ids, every build ends once."""
    randomness = random.Random(f"broker {SEED}")
    scene = start_scene(
        {"latency": LATENCY, "on": "mixed", "idempotent": True}, env={"SCHEDULER_RESEND": "always"}
    )
    builds = some_builds(randomness, 40, 60)
    scene.start(*SOME)
    scene.submit(*builds)
    counted = kill_all_along(scene, randomness, 10, [lambda _: scene.restart_broker()])
    assert counted >= 8, "the builds ended too soon"
    check_all_ended(scene, builds, watched=False)


def test_both_are_killed_again_and_again(start_scene: SceneFactory) -> None:
    """In any order, also one while the other comes back."""
    randomness = random.Random(f"both {SEED}")
    scene = start_scene(
        {"latency": LATENCY, "on": "mixed", "idempotent": True}, env={"SCHEDULER_RESEND": "always"}
    )
    builds = some_builds(randomness, 40, 60)
    scene.start(*SOME)
    scene.submit(*builds)

    def service(pace: Pace) -> None:
        scene.restart(*pace, ready=False)

    def broker(_: Pace) -> None:
        scene.restart_broker()

    def both(pace: Pace) -> None:
        with scene.outage():
            scene.server.kill()
            scene.kill()
            scene.server.start()
        scene.start(*pace, ready=False)

    counted = kill_all_along(scene, randomness, 12, [service, broker, both])
    assert counted >= 10, "the builds ended too soon"
    check_all_ended(scene, builds, watched=False)
