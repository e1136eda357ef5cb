"""A build goes on, and acts once, whatever becomes of its connectors."""

import sqlite3
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from integration.builds import build, component
from integration.conftest import World
from integration.dying import MADE, RECORD, WORK
from integration.harness import Client, Message, Process, states

pytestmark = [pytest.mark.integration, pytest.mark.long]

COMPONENTS, CHAINS, KILLS = 500, 10, 100
HEARTBEAT = 1.0
PAUSE = 1.0
"""Seconds without a heartbeat after which a connector is lost, and of the longest pause before a retry."""
SLACK = 2.0
"""Seconds that a machine which runs other tests, too, may take for what is due."""


class Watcher:
    """Keeps when each component showed a sign of life: a request, a heartbeat, a reply."""

    def __init__(self, client: Client) -> None:
        self._feed = client.listen("vpc.create.aws", "scheduler.beat.*.*.*", "scheduler.reply.*.*.*")

    def silences(self) -> dict[str, float]:
        """The longest silence of each component, from its first request to its last sign, in seconds."""
        heard = [*self._feed]
        components = {
            _address(message): message.json["_component_id"]
            for message in heard
            if message.subject == "vpc.create.aws"
        }
        last: dict[str, float] = {}
        longest: defaultdict[str, float] = defaultdict(float)
        # A request may be handled here later than the heartbeat that follows it.
        for message in sorted(heard, key=lambda message: message.at):
            name = components[_address(message)]
            longest[name] = max(longest[name], message.at - last.get(name, message.at))
            last[name] = message.at
        return longest


def _address(message: Message) -> str:
    """What the subjects of a request's reply and heartbeats end with."""
    subject = message.reply if message.subject == "vpc.create.aws" else message.subject
    return subject.split(".", 2)[2]


def test_a_hundred_kills_of_connectors_leave_no_trace_in_a_build(world: World, tmp_path: Path) -> None:
    """Every component is made once, recorded once, and never silent for longer than its rules say."""
    watcher = Watcher(world.client())
    world.scheduler("--retries", f"*=5:{PAUSE}:{PAUSE}")
    submitter = world.submitter()
    changes = [component(f"vpc::{number}", _heartbeat=HEARTBEAT) for number in range(COMPONENTS)]
    # Chains, and no limit: a component that is tried again would wait behind all that were not tried yet.
    names = [change["_component_id"] for change in changes]
    document = build(*changes, edges=", ".join(" ".join(names[first::CHAINS]) for first in range(CHAINS)))
    with Process(
        *(sys.executable, "-m", "integration.dying", world.server.url, str(tmp_path), str(KILLS)),
        env={"PYTHONPATH": f"{Path(__file__).parents[1]}:{Path(__file__).parents[2]}"},
    ) as dying:
        dying.out.first(lambda line: line == "ready")
        submitter.accepted(document)
        dying.write("begin\n")
        report = submitter.done(document, 60)
        assert [*dying.out].count("kill") >= KILLS // 2, "the build ended too early"
        dying.out.first(lambda line: line == "killed", 60)
    assert set(states(report).values()) == {"completed"}
    made = (tmp_path / MADE).read_text().split()
    assert len(made) == len(set(made)) == COMPONENTS
    with sqlite3.connect(tmp_path / RECORD) as record:
        [(recorded,)] = record.execute("SELECT count(*) FROM work WHERE reply IS NOT NULL")
    record.close()
    assert recorded == COMPONENTS
    silences = watcher.silences()
    assert len(silences) == COMPONENTS
    worst = max(silences, key=silences.__getitem__)
    assert silences[worst] <= HEARTBEAT + PAUSE + 3 * WORK + SLACK, worst
