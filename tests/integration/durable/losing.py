"""One broker of three goes away: which components wait for a timeout although they were answered?

::

    PYTHONPATH=tests python -m integration.durable.losing --rounds 20 --output losing.json

Each round has the service connected to one server, which leads the stream of captured replies, too, and two
connectors on the two others. In the middle of a build that server is stopped (TERM), killed (KILL) or paused
(STOP). A component is *stuck* where a connector has published its reply and the service times it out.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from attrs import asdict, frozen
from support.clusters import Cluster, cluster

from integration.durable.reader import REPLIES
from integration.durable.scene import Recorder
from integration.durable.shapes import plain
from integration.harness import ALL_OF_AWS, Client, Scheduler, Submitter

KINDS = ("TERM", "KILL", "STOP")
SIZE = 2_000
TIMEOUT = 40
"""Seconds that an attempt may take: far more than any outage of one server leaves of them."""
_STREAMS = ("SCHEDULER_LOG", REPLIES, "SCHEDULER_REPORTS")
_LATENCY = (0.05, 1.0)
_DEADLINE = 240.0


@frozen
class Round:
    """What came of one round."""

    kind: str
    stuck: int
    """Components that were answered, and timed out all the same."""
    unasked: int
    """Components that timed out without an answer having been published."""
    twice: int
    """Components that connectors were asked for more than once."""
    seconds: float
    """From the loss of the server to the report."""


class Trial:
    """A cluster, and a service that is connected to one of its servers after another."""

    def __init__(self, stack: ExitStack, servers: Cluster, folder: Path) -> None:
        self._stack = stack
        self._servers = servers
        self._folder = folder
        self._number = 0
        self.service = Scheduler(
            "--attempt-timeout",
            str(TIMEOUT),
            env={"NATS_URL": servers.url, "SCHEDULER_STORE": "jetstream", "SCHEDULER_REPLICAS": "3"},
        )
        stack.callback(self.service.close)
        self.service.await_log("ready")

    def round(self, kind: str, size: int = SIZE) -> Round:
        """Lose the server that the service is connected to, and bring it back afterwards."""
        self._number += 1
        servers = self._servers
        for stream in _STREAMS:
            servers.await_current(stream)
        victim = servers.at(self._connected_to())
        servers.lead(REPLIES, victim)
        with ExitStack() as stack:
            others = servers.others(victim)
            options = {"latency": [*_LATENCY]}
            recorders = []
            for place, server in enumerate(others):
                record = self._folder / f"record-{self._number}-{place}"
                recorder = Recorder(server.url, record, options, *ALL_OF_AWS)
                stack.callback(recorder.close)
                recorders.append(recorder)
            client = Client(others[0].url)
            stack.callback(client.close)
            submitter = Submitter(client)
            document = plain(f"round-{self._number}", size, width=size) | {
                "options": {"on_error": "continue"}
            }
            submitter.accepted(document)
            recorders[0].out.count(size // 8, lambda line: '"answer"' in line)
            began = time.monotonic()
            match kind:
                case "TERM":
                    victim.stop()
                case "KILL":
                    victim.kill()
                case _:
                    victim.pause()
            report = submitter.report(document["id"], _DEADLINE).json
            seconds = time.monotonic() - began
            found = _count(kind, report, [one for recorder in recorders for one in recorder.records], seconds)
        if kind == "STOP":
            victim.resume()
        else:
            victim.start()
        servers.await_api()
        return found

    def _connected_to(self) -> str:
        lines = [line["url"] for line in self.service.log if line["event"] == "connected to the broker"]
        return str(lines[-1])


def _count(kind: str, report: dict[str, Any], records: Iterable[dict[str, Any]], seconds: float) -> Round:
    answered: set[str] = set()
    asked: dict[str, int] = {}
    for record in records:
        name = record["component"]
        if record["event"] == "answer":
            answered.add(name)
        else:
            asked[name] = asked.get(name, 0) + 1
    failed = {change["_component_id"] for change in report["changes"] if change["_state"] != "completed"}
    return Round(
        kind,
        stuck=len(failed & answered),
        unasked=len(failed - answered),
        twice=sum(number > 1 for number in asked.values()),
        seconds=round(seconds, 1),
    )


def table(rounds: list[Round]) -> str:
    """What came of all rounds, by kind."""
    lines = ["kind  rounds  stuck  unasked  twice  median s  most s"]
    for kind in KINDS:
        these = [one for one in rounds if one.kind == kind]
        if these:
            seconds = [one.seconds for one in these]
            sums = [sum(getattr(one, name) for one in these) for name in ("stuck", "unasked", "twice")]
            stuck, unasked, twice = sums
            lines.append(
                f"{kind:4}  {len(these):6}  {stuck:5}  {unasked:7}  {twice:5}"
                f"  {statistics.median(seconds):8.1f}  {max(seconds):6.1f}"
            )
    return "\n".join(lines)


def main() -> int:
    """Run the rounds; the exit code is 1 where a component was stuck."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="of each kind")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--size", type=int, default=SIZE, help="components of a build")
    parser.add_argument("--output", type=Path, help="a JSON file")
    found = parser.parse_args()
    rounds: list[Round] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="losing-")))
        trial = Trial(stack, stack.enter_context(cluster()), folder)
        for number in range(found.rounds):
            for kind in found.kinds:
                rounds.append(trial.round(kind, found.size))
                sys.stderr.write(f"{number + 1}: {rounds[-1]}\n")
    sys.stdout.write(table(rounds) + "\n")
    if found.output:
        found.output.write_text(json.dumps([asdict(one) for one in rounds], indent=1) + "\n")
    return int(any(one.stuck for one in rounds))


if __name__ == "__main__":
    sys.exit(main())
