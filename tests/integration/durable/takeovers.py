"""How long do builds wait for their next owner when one of two schedulers goes?

::

    PYTHONPATH=tests python -m integration.durable.takeovers --rounds 50 --output takeovers.json

In each round both run builds that wait for a reply. Then one of them is told to end (TERM), killed (KILL),
killed and started again under its name at once (BACK), or stopped (STOP). Each of its builds is timed from
that moment to the line of the log with which its next owner takes it up. With ``--brokers 3`` the leases are
on three servers, of which none says who has gone.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Container, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Final

from attrs import asdict, frozen
from support.clusters import cluster

from integration.builds import component
from integration.durable.reader import LOG, REPLIES, REPORTS
from integration.durable.scene import Scene
from integration.durable.shapes import line
from integration.durable.shared import await_event, held
from integration.harness import Scheduler

HOW: Final = ("TERM", "KILL", "BACK", "STOP")
BUILDS: Final = 6
"""Builds of both schedulers in a round."""
STREAMS: Final = (LOG, REPLIES, REPORTS, "KV_SCHEDULER")
_NAMES: Final = ("one", "two")
_DEADLINE: Final = 40.0


@frozen
class Round:
    """What came of one round."""

    how: str
    seconds: list[float]
    """Seconds for which each build had no owner; none where all were with the other one."""


def waits(
    services: Sequence[Scheduler], ends: Mapping[str, float], builds: Container[str] | None = None
) -> list[float]:
    """Return the seconds from the end of each process to each of its builds being taken up.

    Args:
        services: schedulers that took over.
        ends: end of each process, in seconds since 1970.
        builds: those that count; None: all.
    """
    taken = [
        entry
        for service in services
        for entry in service.log
        if entry["event"] == "build taken up"
        and entry["owner_before"] in ends
        and (builds is None or entry["build"] in builds)
    ]
    return sorted(
        datetime.fromisoformat(entry["time"]).timestamp() - ends[entry["owner_before"]] for entry in taken
    )


def percentiles(seconds: Sequence[float]) -> tuple[float, float, float]:
    """Return the median, the 99th percentile and the most of what is sorted."""
    p50, p99 = (seconds[int(part * (len(seconds) - 1))] for part in (0.5, 0.99))
    return p50, p99, seconds[-1]


class Pair:
    """Two schedulers, of which one after another goes and comes back."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._number = 0
        self._live = [self._start(name) for name in _NAMES]

    def _start(self, name: str, *, ready: bool = True) -> Scheduler:
        return self._scene.start(env={"SCHEDULER_INSTANCE": name}, ready=ready)

    def round(self, how: str) -> Round:
        """Have one of them go, and let all builds of the round end."""
        scene, self._number = self._scene, self._number + 1
        gate = f"gate-{self._number}"
        documents = [
            line(f"{how}-{self._number}-{count}", component("vpc::1"), held("net::1", gate))
            for count in range(BUILDS)
        ]
        place = self._number % 2
        victim, other = self._live[place], self._live[not place]
        process = scene.instance(_NAMES[place])
        scene.submit(*documents)
        for document in documents:
            await_event(scene, document["id"], "sent", "net::1")
        names = {document["id"] for document in documents}
        owned = names - {entry["build"] for entry in other.log if entry["event"] == "build started"}
        ended = time.time()
        match how:
            case "TERM":
                victim.send(signal.SIGTERM)
            case "STOP":
                victim.send(signal.SIGSTOP)
            case _:
                victim.kill()
        takers = [other]
        if how == "BACK":
            takers.append(self._start(_NAMES[place], ready=False))
        ends = {process: ended}
        scene.until(lambda: len(waits(takers, ends, owned)) == len(owned), _DEADLINE, "every take-over")
        found = waits(takers, ends, owned)
        scene.recorder.release(gate)
        scene.settle()
        match how:
            case "TERM":
                assert victim.code == 0, victim.errors
                self._live[place] = self._start(_NAMES[place])
            case "STOP":
                victim.send(signal.SIGCONT)
                victim.await_log("the lease of this instance is renewed")
            case "KILL":
                self._live[place] = self._start(_NAMES[place])
            case _:
                self._live[place] = takers[1]
                takers[1].await_log("ready")
        return Round(how, [round(one, 3) for one in found])

    def end(self) -> None:
        """End both; nothing was lost, and nothing was done twice."""
        self._scene.check(watched=False)
        for service in self._live:
            assert service.stop()[0] == 0


def table(rounds: Sequence[Round]) -> str:
    """Percentiles by what has happened."""
    lines = ["how   rounds  take-overs   p50 s   p99 s   most s"]
    for how in HOW:
        these = [one.seconds for one in rounds if one.how == how]
        if these:
            seconds = sorted(one for some in these for one in some)
            p50, p99, most = percentiles(seconds)
            lines.append(f"{how:4}  {len(these):6}  {len(seconds):10}  {p50:6.2f}  {p99:6.2f}  {most:7.2f}")
    return "\n".join(lines)


def main() -> int:
    """Run the rounds, print a table and write a JSON file."""
    parser = argparse.ArgumentParser("python -m integration.durable.takeovers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=50, help="of each kind (50)")
    parser.add_argument("--how", nargs="+", choices=HOW, default=HOW)
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=1)
    parser.add_argument("--output", type=Path, help="a JSON file")
    found = parser.parse_args()
    rounds: list[Round] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="takeovers-")))
        env = {"SCHEDULER_REPLICAS": str(found.brokers)}
        for how in found.how:
            (folder / how).mkdir()
            with ExitStack() as one:
                brokers = one.enter_context(cluster()) if found.brokers == 3 else None
                pair = Pair(Scene(one, folder / how, brokers=brokers, env=env))
                for number in range(found.rounds):
                    rounds.append(pair.round(how))
                    sys.stderr.write(f"{how} {number + 1}: {rounds[-1].seconds}\n")
                pair.end()
    sys.stdout.write(table(rounds) + "\n")
    if found.output:
        found.output.write_text(json.dumps([asdict(one) for one in rounds], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
