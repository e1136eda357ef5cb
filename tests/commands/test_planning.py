"""The commands ``plan`` and ``graph``: what they print, refuse, and exit with."""

import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from support.builds import build, change
from support.previews import previewed
from support.shell import FakeScheduler, scheduler

from scheduler import cli
from scheduler.commands.files import read_example
from scheduler.display import Output
from scheduler.display.preview import preview_lines, show_preview
from scheduler.local.generate import Shape, generate

__all__ = ["scheduler"]

Captured = pytest.CaptureFixture[str]
Write = Callable[[Any], str]


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("SCHEDULER_", "NATS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Puts a build into a file, and gives its name."""

    def put(document: Any) -> str:
        path = tmp_path / "build.json"
        path.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
        return str(path)

    return put


def test_plan_says_what_an_operator_asks_first(capsys: Captured, write: Write) -> None:
    """What is done, in which waves, what decides how long it takes, and how long."""
    assert cli.main(["plan", write(read_example("create")), "--durations", "instance.*.*=30, *=2"]) == 0
    out = capsys.readouterr().out
    for text in (
        "build.create  demo-create (test)",
        "create       7  2 firewall, 1 vpc",
        "1 component exists and stays as it is",
        "     1       1  vpc::test-vpc",
        "    30.0s  instance::test-web-1  given",
        "predicted  38.0s",
    ):
        assert text in out
    assert "\x1b" not in out


def test_plan_says_where_it_guesses(capsys: Captured, write: Write) -> None:
    """Nothing is known: it says so, and how to say better."""
    assert cli.main(["plan", write(read_example("create"))]) == 0
    out = capsys.readouterr().out
    assert "every subject is guessed at 1.0s" in out
    assert "--durations 'vpc.create.aws=30'" in out


def test_plan_names_the_limits_that_cost_time(capsys: Captured, write: Write) -> None:
    """Who waits for which limit, what that adds, and what no order of components undercuts."""
    name = write(generate(101, shape=Shape.WIDE))
    flags = ["--limits", "instance.*.*=5, *=500", "--durations", "*=10"]
    assert cli.main(["plan", name, *flags]) == 0
    out = capsys.readouterr().out
    assert "predicted  1m00s  no order takes less than 50.0s  without limits 20.0s" in out
    assert "  instance.*.*=5  20 components, 40.0s on the critical path" in out
    assert "*=500" not in out


def test_plan_as_json_is_one_document(capsys: Captured, write: Write) -> None:
    """It has version 1, and says what a preview is made of."""
    assert cli.main(["plan", write(read_example("create")), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["v"] == 1
    assert document["id"] == "demo-create"
    assert set(document) >= {
        "waves",
        "critical_path",
        "seconds",
        "lower_bound",
        "limits",
        "unresolved",
        "unreachable",
    }


def test_plan_tells_everything_wrong_with_a_build(capsys: Captured, write: Write) -> None:
    """Each problem with its place, and exit code 1."""
    assert cli.main(["plan", write(build(change("a::1"), edges=[("a::1", "b::1")]))]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "has 1 problem:" in err
    assert "edges[0].destination" in err


def test_plan_warns_of_what_cannot_be_judged_yet(capsys: Captured, write: Write) -> None:
    """References that only a reply can answer, and what is bound to fail."""
    document = build(
        change("cfg::a", "none"),
        change("vpc::a", x="{{ components['cfg::a'].cidr }}"),
        change("net::a", y="{{ components['vpc::a'].arn }}"),
    )
    assert cli.main(["plan", write(document)]) == 0
    out = capsys.readouterr().out
    assert (
        "unresolved  1 reference checked only when due\n  net::a.y\n      its definition has no 'arn'" in out
    )
    assert "unreachable  2 components will not complete\n  vpc::a  x: " in out


def test_plan_reads_standard_input(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dash is standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(read_example("create"))))
    assert cli.main(["plan", "-"]) == 0
    assert "demo-create" in capsys.readouterr().out


def hostile() -> dict[str, Any]:
    """A build whose every name is long, wide, and full of what a terminal would obey."""
    name = "\x1b[31m漢字" * 30
    return build(
        *(change(f"{name}{number}", "create", _component="t" * 60) for number in range(3)),
        change("dep", x="{{ components['" + "z" * 70 + "'].gone }}"),
        change("z" * 70, _component="c" * 60),
        id="b" * 100,
        name=name,
        options={"limits": {"*": 1}},
    )


def test_a_plan_fits_a_terminal() -> None:
    """No line is wider than 80 cells, whatever ids there are, and no id reaches the terminal as a command."""
    out = io.StringIO()
    console = Output()
    console.file, console.width, console._force_terminal = out, 80, True
    show_preview(console, previewed(hostile(), limits="*=1", cap=5))
    lines = out.getvalue().splitlines()
    assert len(lines) == 23
    assert "  *=1  4 components, 3.0s on the critical path" in lines, "of the service and of the build"
    assert max(map(cell_len, lines)) <= 80
    assert "\x1b[31m" not in out.getvalue()


def test_a_plan_of_thousands_is_a_page() -> None:
    """Waves are told by numbers and types, and long lists by their beginning and end."""
    lines = ["".join(text for text, _ in line) for line in preview_lines(previewed(generate(2_000)))]
    assert len(lines) <= 45
    assert "     1     100  25 vpc, 25 network, 25 firewall, 25 instance" in lines
    assert "     ... 8 more waves ..." in lines


def test_plan_can_ask_the_scheduler_what_it_knows(
    scheduler: FakeScheduler, capsys: Captured, write: Write
) -> None:
    """Its durations and its limits count; it is told the subjects, and nothing else of the build."""
    scheduler.say(
        "plan",
        {
            "durations": {
                "vpc.create.fake": {"seconds": 10.0, "source": "recorded"},
                "net.create.fake": {"seconds": 4.0, "source": "default"},
            },
            "limits": [{"limit": "vpc.*.*=1"}, {"limit": "max_in_flight_per_build=7"}],
        },
    )
    document = build(
        change("vpc::a", password="x"), change("vpc::b"), change("net::a"), change("net::b", "none")
    )
    assert cli.main(["plan", write(document), "--ask", "--json"]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert (seen["total"], seen["seconds"]) == (4, 20.0)
    assert seen["durations"] == {
        "vpc.create.fake": {"seconds": 10.0, "source": "recorded"},
        "net.create.fake": {"seconds": 4.0, "source": "default"},
    }
    assert [one["limit"] for one in seen["limits"]] == ["vpc.*.*=1", "max_in_flight_per_build=7"]
    ((verb, question),) = scheduler.asked
    assert verb == "plan"
    assert [one["_component"] for one in question["build"]["changes"]] == ["net", "vpc"]
    assert "password" not in json.dumps(question)


def test_plan_without_a_scheduler_to_ask_says_so(
    scheduler: FakeScheduler, capsys: Captured, write: Write
) -> None:
    """Nothing is guessed in its place."""
    scheduler.there = False
    assert cli.main(["plan", write(generate(3)), "--ask"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "no scheduler answers" in err


def test_graph_writes_dot(capsys: Captured, write: Write) -> None:
    """To standard output, if nothing else is said."""
    assert cli.main(["graph", write(read_example("create"))]) == 0
    out = capsys.readouterr().out
    assert out.startswith("digraph build {\n")
    assert out.count(" -> ") == 11


@pytest.mark.parametrize(("form", "start"), [("dot", "digraph"), ("mermaid", "flowchart"), ("svg", "<svg ")])
def test_graph_writes_a_file(capsys: Captured, write: Write, tmp_path: Path, form: str, start: str) -> None:
    """Each format, and nothing to standard output."""
    target = tmp_path / "graph.out"
    assert cli.main(["graph", write(read_example("create")), "--format", form, "--output", str(target)]) == 0
    assert target.read_text().startswith(start)
    assert capsys.readouterr() == ("", "")


def test_graph_says_where_it_cannot_write(capsys: Captured, write: Write) -> None:
    """One line with the reason, and exit code 1."""
    assert cli.main(["graph", write(read_example("create")), "--output", "/no/where"]) == 1
    assert "cannot write '/no/where'" in capsys.readouterr().err


def test_graph_draws_a_large_build_by_type_and_wave(capsys: Captured, write: Write) -> None:
    """Beyond what can be drawn components are put together, and that is said."""
    assert cli.main(["graph", write(generate(2_000)), "--format", "svg"]) == 0
    out, err = capsys.readouterr()
    assert "25 x vpc" in out
    assert "2,000 components, drawn as one by type and wave; --around COMPONENT" in err


def test_graph_draws_around_a_component(capsys: Captured, write: Write) -> None:
    """Only what is near it."""
    name = write(generate(2_000))
    assert cli.main(["graph", name, "--around", "vpc::node-01000", "--depth", "1"]) == 0
    out = capsys.readouterr().out
    assert 3 <= out.count("[label=") <= 12
    assert cli.main(["graph", name, "--around", "nobody"]) == 1
    assert "nobody is not one of its 2,000 components" in capsys.readouterr().err


def test_graph_of_a_running_build_has_its_states(scheduler: FakeScheduler, capsys: Captured) -> None:
    """What is no file is a build's id: its scheduler is asked."""
    components = [
        {"id": "vpc::a", "subject": "vpc.create.aws", "state": "completed", "needs": []},
        {"id": "net::a", "subject": "net.create.aws", "state": "running", "needs": ["vpc::a"]},
    ]
    scheduler.say(
        "get", {"id": "prod", "action": "build.create", "status": "running", "components": components}
    )
    assert cli.main(["graph", "prod", "--format", "mermaid"]) == 0
    out = capsys.readouterr().out
    assert "<br/>running" in out
    assert "n0 --> n1" in out
    assert scheduler.asked[0][1]["graph"] is True


def test_graph_of_an_unknown_build_is_refused(scheduler: FakeScheduler, capsys: Captured) -> None:
    """In the scheduler's words, with exit code 1."""
    scheduler.refuse("get", "unknown", "there is no build prod")
    assert cli.main(["graph", "prod"]) == 1
    assert "there is no build prod" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_no_build(capsys: Captured) -> None:
    """A name with a slash, or of a JSON file, is never asked of a scheduler."""
    assert cli.main(["graph", "nowhere.json"]) == 1
    assert "cannot read 'nowhere.json'" in capsys.readouterr().err
