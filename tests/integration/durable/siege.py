"""Things are killed while builds run, of which there are always enough."""

import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import cycle
from typing import Any

from nats.errors import NoRespondersError

from integration.durable.scene import Scene, passed, pause
from integration.durable.shapes import SHAPES, shaped
from integration.durable.shared import request_lines

JSON = dict[str, Any]
Target = Callable[[], object]
"""Kills something, and starts it again."""

BUILDS = 12
"""So many run at any time."""
LATENCY = [0.02, 0.1]
PACE = ("--max-in-flight", "12")
WAIT = 2.0
"""Seconds that a moment may keep everybody waiting: what it waits for may not come any more."""


def answer_lines(line: str) -> bool:
    return '"event": "answer"' in line


class Siege:
    """Kills things while builds run, of which there are always enough."""

    def __init__(
        self, scene: Scene, randomness: random.Random, sizes: tuple[int, int], builds: int = BUILDS
    ) -> None:
        self.scene = scene
        self.randomness = randomness
        self.failing: list[str] = []
        """The builds that are to fail."""
        self._sizes = sizes
        self._builds = builds
        self._shapes = cycle(SHAPES)
        self._count = 0
        self._unheard: list[JSON] = []
        """Builds that were handed in, and perhaps killed before the answer."""

    def build(self) -> JSON:
        """Another build: every second one has all actions, every sixth one a component that fails."""
        self._count += 1
        shape = next(self._shapes)
        name = f"{shape}/{self._count}:a@b.c"
        size = self.randomness.randint(*self._sizes)
        behaviours: dict[str, JSON] = {}
        if self._count % 6 == 4:
            behaviours["instance::23"] = {"errors": 1}
            self.failing.append(name)
        mixed = self._count % 2 == 1
        return shaped(name, shape, size, self.randomness, mixed=mixed, behaviours=behaviours)

    def top_up(self) -> None:
        """Hand in as many builds as are missing, beginning with those whose answer may have been lost."""
        handed_in = 0
        with suppress(NoRespondersError, TimeoutError):
            # Several schedulers may end builds as fast as they are handed in.
            while self._unheard or (handed_in < self._builds and len(self.scene.unfinished) < self._builds):
                if not self._unheard:
                    self._unheard.append(self.build())
                self.scene.submit(self._unheard[0], deadline=3)
                del self._unheard[0]
                handed_in += 1

    def run(self, kills: int, targets: Sequence[Target]) -> None:
        """Kill one of the ``targets``, so many times."""
        for number in range(1, kills + 1):
            self.top_up()
            if number % 3 == 0:
                self.scene.take_hold()
            name = self.await_moment()
            pause(self.randomness, 0.02)
            print(f"kill {number}: {name}, {len(self.scene.recorder.records)} records")
            self.randomness.choice(targets)()

    def end(self, *, watched: bool = True) -> None:
        """As `check`; then end the service."""
        self.check(watched=watched)
        self.scene.end()

    def check(self, *, watched: bool = True) -> None:
        """Let everything come to its end, and look at it; ``watched`` as for `Scene.evidence`."""
        self.scene.service.await_log("ready")
        while self._unheard:
            self.top_up()
        self.scene.settle(60)
        # What may have left is not sent again in a build that has failed already: nobody knows how it went.
        evidence = self.scene.check(excuses=["and the build had failed already"], watched=watched)
        failed = [stored.build for stored in evidence.reports if "error" in stored.body]
        assert sorted(failed) == sorted(self.failing)

    def await_moment(self) -> str:
        """Wait for a moment of one kind or another; says which."""
        randomness, scene = self.randomness, self.scene
        many, seconds = randomness.randint(1, 25), randomness.uniform(0.2, 1)
        event = randomness.choice(["started", "sent", "settled", "finished", "reported", "loading"])
        mark = f'"event":"{event}"'.encode()
        match randomness.choices(range(6), weights=[3, 3, 4, 1, 2, 2])[0]:
            case 0:
                passed(scene.recorder.out, many, request_lines, WAIT)
                return f"{many} requests"
            case 1:
                passed(scene.recorder.out, many, answer_lines, WAIT)
                return f"{many} answers"
            case 2:
                # Records are seen as they are published: nobody knows yet whether they are stored.
                passed(scene.appends, 1, lambda message: mark in message.data, WAIT)
                return f"a record with {event}"
            case 3:
                passed(scene.submitter.reports, 1, lambda _: True, WAIT)
                return "a report"
            case 4:
                # It may be connecting, reading logs, sending again.
                time.sleep(seconds)
                return f"{seconds:.2f} s"
            case _:
                self._unheard.append(self.build())
                scene.submitter.publish(self._unheard[-1])
                return "a build that is handed in"
