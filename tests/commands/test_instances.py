"""``scheduler instances``: what it prints."""

import json
import time
from typing import Any

import pytest
from rich.console import Console
from support.feeds import JSON
from support.shell import FakeScheduler

from scheduler import cli
from scheduler.display.instances import differences, show_instances

Captured = pytest.CaptureFixture[str]


def instance(name: str, **fields: Any) -> JSON:
    return {
        "name": name,
        "instance": f"{name}-1a2b3c4d",
        "standing": "active",
        "version": "1.0.0",
        "began": time.time() - 7_200,
        "age": 1.2,
        "builds": 12,
        "components": 34_567,
        "in_flight": 890,
        "full": False,
        "limits": [],
        **fields,
    }


def fleet(*instances: JSON) -> JSON:
    return {"fleet": True, "store": "jetstream", "answered": "alpha", "instances": list(instances)}


def test_each_instance_is_a_line(scheduler: FakeScheduler, capsys: Captured) -> None:
    """With what it does, what it has if it works, the age of its lease, and how long it runs."""
    lapsed = instance("beta", standing="lapsed", age=75.0, full=True)
    scheduler.say("instances", fleet(instance("alpha", full=True), lapsed))
    assert cli.main(["instances"]) == 0
    head, first, second, answered = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "STANDING", "VERSION", "BUILDS", "COMPONENTS", "FLIGHT", "LEASE", "UP"]
    assert first.split() == ["alpha", "active,", "full", "1.0.0", "12", "34,567", "890", "1.2s", "2h00m"]
    assert second.split()[:7] == ["beta", "lapsed", "1.0.0", "-", "-", "-", "1m15s"]
    assert answered == "answered by alpha"


def test_it_fits_a_terminal_of_80_columns() -> None:
    """Long names are cut in the middle, and nothing else is."""
    console = Console(force_terminal=True, width=80, color_system=None)
    with console.capture() as capture:
        show_instances(
            console, fleet(instance("scheduler-7d9f8c-x7k2p-1a2b3c4d", standing="draining")), time.time()
        )
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].split()[1:] == ["draining", "1.0.0", "12", "34,567", "890", "1.2s", "2h00m"]


def test_instances_as_json(scheduler: FakeScheduler, capsys: Captured) -> None:
    """As the scheduler answers."""
    answer = fleet(instance("alpha"))
    scheduler.say("instances", answer)
    assert cli.main(["instances", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"v": 1, **answer}


def test_a_scheduler_that_shares_no_builds_says_so(scheduler: FakeScheduler, capsys: Captured) -> None:
    """That is no error."""
    scheduler.say("instances", {"fleet": False, "store": "memory", "answered": "", "instances": []})
    assert cli.main(["instances"]) == 0
    assert capsys.readouterr().out == "one instance at work: the store memory is not shared\n"


def test_the_one_that_works_is_listed_with_those_that_stand_by(
    scheduler: FakeScheduler, capsys: Captured
) -> None:
    """Where the store is not shared; one that stands by has no lease."""
    rows = [instance("alpha"), instance("beta", standing="standby", age=None)]
    answer = {"fleet": False, "store": "ernest", "answered": "alpha", "instances": rows}
    scheduler.say("instances", answer)
    assert cli.main(["instances"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [["alpha", "active"], ["beta", "standby"]]
    assert lines[2].split()[3:7] == ["-", "-", "-", "-"]
    assert lines[3:] == ["answered by alpha", "one works at a time: the store ernest is not shared"]


def test_what_instances_do_not_agree_in_is_said() -> None:
    """Of those at work; one that has lapsed, or gone, counts no more."""
    old = instance("beta", version="0.9.0", limits=["vpc.*.*=5"])
    assert differences([instance("alpha"), old]) == [
        "their versions differ: 0.9.0, 1.0.0",
        "their --limits differ: the lowest of each holds",
    ]
    assert differences([instance("alpha"), {**old, "standing": "lapsed"}, {**old, "standing": "gone"}]) == []
    assert differences([instance("a", limits=["x", "y"]), instance("b", limits=["y", "x"])]) == []


def test_nonsense_is_shown_as_far_as_it_goes(scheduler: FakeScheduler, capsys: Captured) -> None:
    """Another version may say anything."""
    strange = {"name": 5, "age": "x", "builds": None, "limits": 3, "standing": "\x1b[31m"}
    scheduler.say("instances", {"fleet": True, "instances": [strange, 7]})
    assert cli.main(["instances"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
