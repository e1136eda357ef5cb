"""A broker that stalls, and a network that is bad: slow, deaf one way or both, cut in the middle of things.

Most of it is waiting, for deadlines of half a minute. So all of these run side by side, each in a thread and
with processes of its own, from when the first of them is asked for.
"""

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from integration.builds import build, component
from integration.durable.conftest import SceneFactory
from integration.durable.proxy import Proxy, Way
from integration.durable.scene import SEED, Scene, passed, pause
from integration.durable.shapes import SHAPES, shaped
from integration.durable.shared import await_event, held, request_lines
from integration.harness import DEADLINE

pytestmark = pytest.mark.integration

JSON = dict[str, Any]
Story = Callable[[Scene, random.Random], None]

MOST = 6
"""Requests in flight at a time."""
LATENCY = [0.05, 0.2]
DEAF = 20.0
"""Seconds: longer than it takes the service to find out (15)."""
BACK = 3.0
"""Seconds in which work is to go on when the broker is back, and the half of what a noisy machine gets."""


def proxy_of(scene: Scene) -> Proxy:
    assert scene.proxy is not None
    return scene.proxy


def progress(scene: Scene, number: int, deadline: float = 20) -> None:
    """Wait for so many further requests."""
    assert passed(scene.recorder.out, number, request_lines, deadline), "nothing goes on"


def goes_on(scene: Scene, what: str) -> None:
    """Work goes on soon: more is requested than can have been on its way before."""
    began = time.monotonic()
    progress(scene, 2 * MOST)
    took = time.monotonic() - began
    print(f"{what}: goes on after {took:.2f} s")
    assert took < 2 * BACK, f"{what}: went on after {took} s"


def stalled(scene: Scene, randomness: random.Random) -> None:
    """The broker is stopped, for less than it takes to notice, and for longer."""
    for seconds in (3.0, DEAF):
        progress(scene, 10)
        pause(randomness, 0.1)
        # The shorter one breaks no connection, and so explains nothing.
        with scene.outage() if seconds == DEAF else nullcontext():
            scene.server.pause()
            time.sleep(seconds)
            scene.server.resume()
        goes_on(scene, f"stalled for {seconds:g} s")


def deaf(*ways: Way, cut: bool = False) -> Story:
    """Nothing gets through, some ways or both; then it does again, what was held included, or all is cut."""

    def story(scene: Scene, randomness: random.Random) -> None:
        progress(scene, 10)
        pause(randomness, 0.1)
        with scene.outage():
            proxy_of(scene).hold(*ways)
            time.sleep(DEAF)
            if cut:
                proxy_of(scene).cut()
            proxy_of(scene).heal()
        goes_on(scene, f"{[way.value for way in ways]} held, {cut=}")

    return story


def believed(scene: Scene, randomness: random.Random) -> None:
    """What the broker says is taken from it and lost, for long; then the connection is reset."""
    progress(scene, 10)
    pause(randomness, 0.1)
    with scene.outage():
        proxy_of(scene).swallow(Way.DOWN)
        time.sleep(DEAF)
        proxy_of(scene).heal()
    goes_on(scene, "swallowed")


def has_links(scene: Scene, number: int) -> bool:
    """Whether the service has connected so often by now."""
    return proxy_of(scene).accepted >= number


def shaky(scene: Scene, randomness: random.Random) -> None:
    """Slow, and cut at any moment, also in the middle of messages of either side."""
    for number in range(12):
        proxy_of(scene).slow(
            randomness.choice([0, 0.02, 0.1]), *randomness.choice([(Way.UP,), (Way.DOWN,), ()])
        )
        progress(scene, randomness.randint(1, 8))
        pause(randomness, 0.1)
        links = proxy_of(scene).accepted
        with scene.outage():
            if number % 3:
                proxy_of(scene).cut_after(randomness.randint(1, 4_000), randomness.choice(list(Way)))
            else:
                proxy_of(scene).cut()
            scene.until(partial(has_links, scene, links + 1), 20, "a new connection")
    proxy_of(scene).heal()


STORIES: dict[str, tuple[Story, str]] = {
    "stalled, always": (stalled, "always"),
    "stalled, unsent": (stalled, "unsent"),
    "deaf both ways, healed": (deaf(Way.UP, Way.DOWN), "always"),
    "deaf both ways, cut": (deaf(Way.UP, Way.DOWN, cut=True), "always"),
    "deaf upwards, healed": (deaf(Way.UP), "unsent"),
    "deaf downwards, cut": (deaf(Way.DOWN, cut=True), "always"),
    "believed": (believed, "unsent"),
    "shaky, always": (shaky, "always"),
    "shaky, unsent": (shaky, "unsent"),
}


def play(name: str, folder: Path) -> None:
    """Have a story happen to some builds, and look at what has become of them."""
    story, resend = STORIES[name]
    randomness = random.Random(f"{name} {SEED}")
    options: JSON = {"latency": LATENCY, "on": "mixed", "idempotent": resend == "always"}
    with ExitStack() as stack:
        scene = Scene(stack, folder, options, env={"SCHEDULER_RESEND": resend}, proxied=True)
        # With `unsent` what is lost on the way has to time out: nobody can tell whether it was received.
        timeout = "8" if resend == "unsent" else "3600"
        scene.start("--max-in-flight", str(MOST), "--start-timeout", "30", "--attempt-timeout", timeout)
        scene.submit(*(shaped(f"{shape}/1", shape, 60, randomness) for shape in SHAPES))
        story(scene, randomness)
        print(f"{name}: {len(scene.recorder.requests())} requests by now")
        scene.settle(60)
        scene.check(excuses=["timed out after 8 s"] if resend == "unsent" else [])
        scene.end()


@pytest.fixture(scope="module")
def plays(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, "Future[None]"]]:
    """The stories that are asked for, under way."""
    names = [
        str(item.callspec.params["name"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.path == request.path and "plays" in item.fixturenames
    ]
    with ThreadPoolExecutor(len(names)) as threads:
        yield {name: threads.submit(play, name, tmp_path_factory.mktemp("story")) for name in names}


@pytest.mark.alone
@pytest.mark.parametrize("name", STORIES)
def test_every_build_ends_once(name: str, plays: dict[str, "Future[None]"]) -> None:
    """Nothing is sent twice with ``unsent``, nothing lost with ``always``, and work goes on when it can."""
    plays[name].result(100)


@pytest.mark.parametrize(("resend", "times"), [("unsent", 1), ("always", 2)])
def test_what_is_known_to_have_left_is_sent_again_only_with_always(
    start_scene: SceneFactory, resend: str, times: int
) -> None:
    """The connection is lost while its connector is at work."""
    scene = start_scene({"idempotent": True}, env={"SCHEDULER_RESEND": resend}, proxied=True)
    document = build(held("vpc::1", "go"), id="left")
    after = build(component("vpc::1"), id="after")
    service = scene.start()
    scene.submit(document)
    await_event(scene, "left", "sent", "vpc::1")
    with scene.outage():
        proxy_of(scene).cut()
        service.await_log("connected to the broker", times=2)
    scene.recorder.await_request("left", "vpc::1", times=times)
    # Builds are taken again once the store has answered over the new connection.
    scene.until(lambda: scene.try_to_submit(after), DEADLINE, "the intake")
    scene.submitter.done(after)
    scene.recorder.release("go")
    scene.submitter.done(document)
    assert len(scene.recorder.requests("left")) == times
    scene.settle()
    scene.check()
    scene.end()
