"""Scripts of simulated connectors: times, failures and outputs by subject."""

# ruff: noqa: ARG001 - a test asks for the clock by naming it

import json
from pathlib import Path
from typing import Any

import pytest
import trio
from support.fake_bus import FakeBus

from scheduler import cli
from scheduler.client.timeline import Span
from scheduler.local.script import ScriptRule, parse_script, recorded, rule_for
from scheduler.local.simulator import Behaviour, Simulator


def parsed(**rule: Any) -> ScriptRule:
    ((found,), problems) = parse_script({"vpc.create.*": rule})
    assert problems == []
    return found


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"seconds": 2}, {"seconds": (2.0, 2.0)}),
        ({"seconds": "250ms"}, {"seconds": (0.25, 0.25)}),
        ({"seconds": "1s..1m30s"}, {"seconds": (1.0, 90.0)}),
        ({"seconds": "0.5..2"}, {"seconds": (0.5, 2.0)}),
        ({"fail": 0.25}, {"rate": 0.25}),
        ({"fail": {"rate": 0.5, "error": "quota"}}, {"rate": 0.5, "error": "quota"}),
        ({"fail": {"first": 2}}, {"rate": 0.0, "first": 2}),
        ({"fail": {"error": "never"}}, {"rate": 1.0, "error": "never"}),
        ({"output": {"zone": "a"}}, {"output": {"zone": "a"}}),
        ({}, {}),
    ],
)
def test_what_a_rule_says(rule: dict[str, Any], expected: dict[str, Any]) -> None:
    """In each of its forms."""
    assert parsed(**rule) == ScriptRule("vpc.create.*", **expected)


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"vpc": {}}, "vpc: is not a pattern"),
        ({"*": 5}, "*: is no object; it can have seconds, fail, output"),
        ({"*": {"second": 1}}, "*.second: is not known; did you mean 'seconds'?"),
        ({"*": {"seconds": "5s..1s"}}, "*.seconds: is no time"),
        ({"*": {"seconds": "1..2..3"}}, "*.seconds: is no time"),
        ({"*": {"seconds": -1}}, "*.seconds: is no time"),
        ({"*": {"seconds": 10**400}}, "*.seconds: is no time"),
        ({"*": {"seconds": True}}, "*.seconds: is no time"),
        ({"*": {"seconds": "nan"}}, "*.seconds: is no time"),
        ({"*": {"fail": 2}}, "*.fail: is no share"),
        ({"*": {"fail": None}}, "*.fail: is no share"),
        ({"*": {"fail": {"rate": "x"}}}, "*.fail.rate: is no share"),
        ({"*": {"fail": {"first": -1}}}, "*.fail.first: is no whole number"),
        ({"*": {"fail": {"first": 1, "rate": 1}}}, "*.fail: has both rate and first"),
        ({"*": {"fail": {"error": 1}}}, "*.fail.error: is no text"),
        ({"*": {"output": []}}, "*.output: is no object of fields"),
    ],
)
def test_a_problem_names_its_place(document: dict[str, Any], problem: str) -> None:
    """And what is allowed."""
    _, problems = parse_script(document)
    assert [str(one).startswith(problem) for one in problems] == [True], problems


def test_the_first_pattern_that_matches_counts() -> None:
    """As in every list of patterns."""
    script, _ = parse_script({"vpc.create.*": {"seconds": 1}, "*": {"seconds": 2}})
    first, other = rule_for(script, "vpc.create.aws"), rule_for(script, "net.create.aws")
    assert first is not None
    assert other is not None
    assert (first.seconds, other.seconds) == ((1.0, 1.0), (2.0, 2.0))
    assert rule_for((), "vpc.create.aws") is None


def test_what_a_rule_does_not_say_is_as_the_flags_say() -> None:
    """Its times, with the failures of the flags."""
    script, _ = parse_script({"vpc.*.*": {"seconds": "2..4"}})
    behaviour = Behaviour(failure_rate=1, script=script)
    delays = [behaviour.fate(f"vpc::{number}", "vpc.create.aws") for number in range(200)]
    assert all(2 <= delay <= 4 and fails for delay, fails in delays)
    assert max(delays)[0] - min(delays)[0] > 1.5
    assert behaviour.fate("net::1", "net.create.aws")[0] < 1


async def test_the_first_requests_of_a_component_fail(
    fake_bus: FakeBus, autojump_clock: trio.abc.Clock
) -> None:
    """With the rule's text; then it succeeds, with the rule's fields, and those of the flags before them."""
    rule = {"seconds": 1, "fail": {"first": 2, "error": "no capacity"}, "output": {"zone": "a"}}
    script, _ = parse_script({"vpc.create.*": rule})
    vpc = {"_component_id": "vpc::a", "service": "b"}
    async with trio.open_nursery() as nursery:
        await nursery.start(Simulator(fake_bus, Behaviour(script=script)).run)
        for _ in range(3):
            fake_bus.publish("vpc.create.aws", json.dumps(vpc).encode(), reply="")
            await trio.sleep(1.1)
        nursery.cancel_scope.cancel()
    replies = [
        json.loads(one.data) for one in fake_bus.published if one.subject.endswith((".done", ".error"))
    ]
    assert [one.get("error") for one in replies] == ["no capacity", "no capacity", None]
    assert replies[-1]["zone"] == "a"


def test_a_build_is_recorded_as_a_script() -> None:
    """Times of all attempts by subject, and the share that failed, with a text."""
    spans = [
        Span("a", "completed", 0, 0, 2, subject="vpc.create.aws"),
        Span("b", "errored", 0, 3, 8, subject="vpc.create.aws", error="quota", before=((0, 1),)),
        Span("c", "completed", 0, 0, 1.5, subject="net.create.aws"),
        Span("d", "skipped", 1, 1, 1, subject="net.create.aws"),
        Span("e", "running", 1, 1, 9, subject="dns.create.aws"),
    ]
    document = recorded(spans)
    assert document == {
        "net.create.aws": {"seconds": "1.5"},
        "vpc.create.aws": {"seconds": "1..5", "fail": {"rate": 0.667, "error": "quota"}},
    }
    assert parse_script(document)[1] == []


def test_a_problem_in_a_file_has_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In YAML and in JSON; nothing is connected to."""
    path = tmp_path / "rules.yaml"
    path.write_text('vpc.create.*:\n  seconds: 1s..5s\n  fail: 7\n"*":\n  secs: 1\n')
    assert cli.main(["simulate", "--behaviour", str(path)]) == 1
    err = capsys.readouterr().err
    assert f"{path}:3: vpc.create.*.fail: is no share" in err
    assert f"{path}:5: *.secs: is not known" in err


def test_a_script_is_for_simulated_connectors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`run` takes one with --simulate only."""
    assert cli.main(["run", "build.json", "--behaviour", "rules.yaml"]) == 2
    assert "add --simulate" in capsys.readouterr().err
