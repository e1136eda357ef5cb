"""The service, the broker, or both are killed with -9 at random moments while builds run."""

import random

import pytest

from integration.durable.conftest import SceneFactory
from integration.durable.scene import SEED
from integration.durable.siege import LATENCY, PACE, Siege

pytestmark = pytest.mark.integration


@pytest.mark.long
def test_the_service_is_killed_again_and_again(start_scene: SceneFactory) -> None:
    """Every build ends once, and nothing is sent twice but what may not have left."""
    randomness = random.Random(f"service {SEED}")
    scene = start_scene({"latency": LATENCY, "on": "mixed"})
    siege = Siege(scene, randomness, (40, 100))
    scene.start(*PACE)
    siege.run(30, [lambda: scene.restart(*PACE, ready=False)])
    siege.end()


@pytest.mark.long
def test_the_broker_is_killed_again_and_again(start_scene: SceneFactory) -> None:
    """With ``always`` and connectors that honour attempt ids, every build ends once."""
    randomness = random.Random(f"broker {SEED}")
    scene = start_scene(
        {"latency": LATENCY, "on": "mixed", "idempotent": True}, env={"SCHEDULER_RESEND": "always"}
    )
    siege = Siege(scene, randomness, (40, 60))
    scene.start(*PACE)
    siege.run(10, [scene.restart_broker])
    siege.end(watched=False)


@pytest.mark.long
def test_both_are_killed_again_and_again(start_scene: SceneFactory) -> None:
    """In any order, also one while the other comes back."""
    randomness = random.Random(f"both {SEED}")
    scene = start_scene(
        {"latency": LATENCY, "on": "mixed", "idempotent": True}, env={"SCHEDULER_RESEND": "always"}
    )
    siege = Siege(scene, randomness, (40, 60))
    scene.start(*PACE)

    def service() -> None:
        scene.restart(*PACE, ready=False)

    def both() -> None:
        with scene.outage():
            scene.server.kill()
            scene.kill()
            scene.server.start()
        scene.start(*PACE, ready=False)

    siege.run(12, [service, scene.restart_broker, both])
    siege.end(watched=False)
