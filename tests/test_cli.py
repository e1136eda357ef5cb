"""The command line: what it takes, what it says, and how it exits."""

import gc
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from scheduler import __version__, cli
from scheduler.cli import build_app
from scheduler.commands.catalogue import COMMANDS as CATALOGUE
from scheduler.commands.catalogue import NAMES as COMMANDS
from scheduler.commands.catalogue import CommandEntry
from scheduler.commands.files import read_example
from scheduler.config import Settings
from scheduler.definition.rules import LimitRule, Retry
from scheduler.diagnosis.permissions import publishes
from scheduler.local.generate import generate
from scheduler.setting import variables_of

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine reaches a test."""
    for name in list(os.environ):
        if name.startswith(("SCHEDULER_", "NATS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def _log_as_it_was() -> Iterator[None]:
    """What a command does to the log stays with it."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings with which the service would have run."""
    seen: list[Settings] = []

    class Session:
        @staticmethod
        def run_async(main: Any) -> int:
            (settings,) = main.args
            seen.append(settings)
            return 0

    monkeypatch.setitem(sys.modules, "scheduler.commands.session", Session)
    monkeypatch.setattr("scheduler.log.configure_logging", lambda *_: None)
    return seen


@pytest.mark.parametrize("tokens", [[], ["serve"]])
def test_serving_is_what_happens_without_a_command(served: list[Settings], tokens: list[str]) -> None:
    """Neither a command nor a flag: the service runs with its defaults."""
    assert cli.main(tokens) == 0
    assert served == [Settings()]


def test_garbage_is_collected_while_the_service_runs(served: list[Settings]) -> None:
    """Not while its modules are loaded, which stay; but from then on."""
    assert cli.main(["serve"]) == 0
    assert served
    assert gc.isenabled()


@pytest.mark.parametrize("tokens", [[], ["serve"]])
def test_flags_reach_the_service(served: list[Settings], tokens: list[str]) -> None:
    """Flags count with and without the command's name, and before their variables."""
    flags = [
        "--store",
        "ernest",
        "--grace",
        "3",
        "--max-changes",
        "7",
        "--timeouts",
        "*.create.*=5",
        "--embedded",
    ]
    assert cli.main([*tokens, *flags]) == 0
    (settings,) = served
    assert (settings.store, settings.grace, settings.limits.max_changes) == ("ernest", 3.0, 7)
    assert settings.timeouts == (("*.create.*", 5.0),)
    assert settings.embedded


def test_the_ernest_store_has_references_read_as_its_mapper_needs_it(served: list[Settings]) -> None:
    """What is given beside it counts, whether as a flag or as a variable."""
    assert cli.main(["--store", "ernest"]) == 0
    assert cli.main(["--store", "ernest", "--templates", "all", "--unresolved", "error"]) == 0
    assert [(one.templates, one.unresolved) for one in served] == [("ernest", "keep"), ("all", "error")]


@pytest.mark.parametrize(
    ("variable", "attribute", "expected"),
    [
        ("SCHEDULER_STORE=ernest", "store", "ernest"),
        ("SCHEDULER_REPLICAS=3", "replicas", 3),
        ("SCHEDULER_CAPTURE=vpc,network", "capture", ("vpc", "network")),
        ("SCHEDULER_REPLY_BYTES=20000000", "reply_bytes", 20_000_000),
        ("SCHEDULER_KEEP=604800", "keep", 604_800.0),
        ("SCHEDULER_BROKER_GRACE=60", "broker_grace", 60.0),
        ("SCHEDULER_GRACE=1.5", "grace", 1.5),
        ("SCHEDULER_TEMPLATES=ernest", "templates", "ernest"),
        ("SCHEDULER_UNRESOLVED=keep", "unresolved", "keep"),
        ("SCHEDULER_MAX_BUILDS=5", "max_builds", 5),
        ("SCHEDULER_EMBEDDED=true", "embedded", True),
        ("SCHEDULER_EMBEDDED=0", "embedded", False),
        ("SCHEDULER_LOG_FORMAT=json", "log_format", "json"),
        ("SCHEDULER_DATA_DIR=/data", "data_dir", Path("/data")),
        ("SCHEDULER_NAME=one", "name", "one"),
        ("SCHEDULER_RESEND=never, a.b.c=always", "resend", (("a.b.c", "always"), ("*.*.*", "never"))),
        ("SCHEDULER_LIMITS=*=500, a.b.c=5", "rules", (LimitRule("*.*.*", 500), LimitRule("a.b.c", 5))),
        ("SCHEDULER_RETRIES=a.b.c=5:2", "retries", (("a.b.c", Retry(5, 2)),)),
    ],
)
def test_every_flag_is_a_variable(
    served: list[Settings], monkeypatch: pytest.MonkeyPatch, variable: str, attribute: str, expected: object
) -> None:
    """A variable does what its flag does."""
    monkeypatch.setenv(*variable.split("=", 1))
    assert cli.main([]) == 0
    assert getattr(served[0], attribute) == expected


def test_a_flag_counts_before_its_variable(served: list[Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where both are given the flag wins."""
    monkeypatch.setenv("SCHEDULER_GRACE", "1")
    cli.main(["--grace", "2"])
    assert served[0].grace == 2.0


def test_where_the_broker_is(served: list[Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    """NATS_URI, as Ernest sets it, counts where there is no NATS_URL; both may name several servers."""
    monkeypatch.setenv("NATS_URI", "nats://uri:1")
    cli.main([])
    monkeypatch.setenv("NATS_URL", "nats://url:1,tls://url:2")
    cli.main([])
    cli.main(["--nats-url", "flag"])
    assert [settings.bus.servers for settings in served] == [
        ("nats://uri:1",),
        ("nats://url:1", "tls://url:2"),
        ("nats://flag",),
    ]


@pytest.mark.parametrize(
    ("tokens", "parts"),
    [
        (["--grace", "soon"], ["--grace", "SCHEDULER_GRACE", "'soon'", "a duration from 0s to 1h"]),
        (["--grace", "nan"], ["--grace", "nan"]),
        (["--max-builds", "0"], ["--max-builds", "SCHEDULER_MAX_BUILDS", "0"]),
        (["--store", "redis"], ["--store", "SCHEDULER_STORE", "'redis'", "auto, jetstream, ernest, memory"]),
        (["--templates", "some"], ["--templates", "'some'", "all, ernest"]),
        (["--replicas", "6"], ["--replicas", "SCHEDULER_REPLICAS", "6", "from 1 to 5"]),
        (["--keep", "-1"], ["--keep", "SCHEDULER_KEEP", "-1"]),
        (["--capture", "*"], ["--capture", "SCHEDULER_CAPTURE", "'*'"]),
        (["--resend", "often"], ["--resend", "SCHEDULER_RESEND", "'often'", "unsent, always, never"]),
        (["--max-definition-bytes", "1"], ["--max-definition-bytes", "SCHEDULER_MAX_DEFINITION_BYTES"]),
        (["--timeouts", "often"], ["--timeouts", "'often'", "PATTERN=DURATION"]),
        (["--limits", "vpc=5"], ["--limits (SCHEDULER_LIMITS)", "'vpc=5'", "vpc.create.*"]),
        (["--retries", "*=often"], ["--retries (SCHEDULER_RETRIES)", "'*=often'", "vpc.create.*=5:1s:1m"]),
        (["--nats-url", "http://x"], ["--nats-url", "NATS_URL", "NATS_URI", "'http://x'"]),
        (["--nkey", "/no/where"], ["--nkey (SCHEDULER_NKEY)", "/no/where"]),
        (["--wat"], ["--wat"]),
        (["--grace"], ["--grace"]),
        (["wat"], ["'wat'", ", ".join(COMMANDS)]),
        (["run"], ["FILE"]),
        (["run", "--wat"], ["'--wat'"]),
        (["validate", "x", "--wat"], ["--wat"]),
        (["run", "a", "b"], ["b"]),
        (["simulate", "--failure-rate", "2"], ["--failure-rate", "SCHEDULER_FAILURE_RATE", "2.0", "0 to 1"]),
        (["simulate", "--reply-to", "x"], ["--reply-to", "subject, inbox, both"]),
        (["simulate", "--outputs", "x"], ["--outputs", "'x'", "PATTERN:FIELD=VALUE"]),
        (["demo", "--components", "10001"], ["--components", "10001", "0 to 10,000"]),
        (["demo", "--example", "x"], ["--example", "create, delete"]),
        (["plan"], ["FILE"]),
        (["plan", "x", "--durations", "*=soon"], ["--durations", "SCHEDULER_DURATIONS", "'*=soon'"]),
        (["plan", "x", "--limits", "vpc=1"], ["--limits", "SCHEDULER_LIMITS", "'vpc=1'"]),
        (["graph", "x", "--format", "pdf"], ["--format", "dot", "mermaid", "svg"]),
        (["graph", "x", "--depth", "-1"], ["--depth", "-1"]),
        (["validate", "--max-depth", "1", "x"], ["--max-depth", "SCHEDULER_MAX_DEPTH"]),
    ],
)
def test_a_wrong_value_is_one_clear_line(
    capsys: pytest.CaptureFixture[str], tokens: list[str], parts: list[str]
) -> None:
    """What is wrong with the command line is one line on standard error, and exit code 2."""
    assert cli.main(tokens) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("scheduler: ")
    assert all(part in err for part in parts), err


def test_an_empty_variable_is_not_set(served: list[Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is there and empty changes nothing; the next one that says the same counts."""
    for name in ("NATS_URL", "NATS_CONTEXT", "SCHEDULER_GRACE", "SCHEDULER_STORE", "SCHEDULER_NKEY"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("NATS_URI", "nats://ernest")
    assert cli.main([]) == 0
    assert served[0].bus.servers == ("nats://ernest",)
    assert (served[0].grace, served[0].store, served[0].bus.nkey) == (25.0, "auto", None)


@pytest.mark.parametrize(
    ("name", "value"),
    [("SCHEDULER_GRACE", "soon"), ("SCHEDULER_EMBEDDED", "maybe"), ("NATS_URI", "::")],
)
def test_a_wrong_variable_is_one_clear_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """A variable's value is checked as a flag's is."""
    monkeypatch.setenv(name, value)
    assert cli.main([]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert name in err


def test_secrets_stay_secret_in_complaints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No complaint repeats a password."""
    monkeypatch.setenv("SCHEDULER_PASSWORD", "hunter2")
    cli.main([])
    monkeypatch.setenv("NATS_URL", "nats://joe:hunter2@h:x")
    cli.main([])
    assert "hunter2" not in capsys.readouterr().err


PAGES = [["--help"], *([command, flag] for command in COMMANDS for flag in ("--help", "--help-all"))]
ONCE = {
    "behaviour", "build", "otlp",
    "all", "components", "now", "reason", "as", "output", "trace", "format", "around", "depth", "ask",
    "secrets", "id", "set", "set-string", "values", "fresh", "target", "exclude", "from",
    "run", "component", "field", "timeout", "status", "name", "since", "sort",
    "body", "slow-body", "together", "hostile", "within", "yes", "force", "tls", "page",
}  # fmt: skip
"""Flags of what is asked or ordered once: no variable says it for every call."""
SHARED = {"nats-url", "user", "inbox-prefix", "tls-ca", "log-level", "log-format"}


def shown(tokens: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a page of the help says."""
    assert cli.main(tokens) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def panels(page: str) -> str:
    """A page without the text above and below its panels."""
    return "\n".join(line for line in page.splitlines() if line.startswith(("│", "╭")))


def flags(page: str) -> set[str]:
    """The flags that a page explains."""
    return set(re.findall(r"│ (?:\*  )?--([a-z-]+)", panels(page)))


@pytest.mark.parametrize("tokens", PAGES)
def test_help_fits_80_columns(capsys: pytest.CaptureFixture[str], tokens: list[str]) -> None:
    """Help is for every command, no wider than a terminal, and names every variable in full."""
    page = shown(tokens, capsys)
    assert max(len(line.rstrip()) for line in page.splitlines()) <= 80
    assert "Usage: scheduler" in page
    whole = re.sub(r"[│\s]+", " ", page)
    without = {"doctor": {"behaviour"}, "demo": {"behaviour"}, "connect": {"store", "drain"}}
    for flag in flags(page) - without.get(tokens[0], ONCE):
        variables = ", ".join(variables_of(flag.replace("-", "_")))
        assert variables in whole, flag


def test_help_lists_every_command_in_its_group(capsys: pytest.CaptureFixture[str]) -> None:
    """The first help that people read has four groups, and a line for each command."""
    page = shown(["--help"], capsys)
    found: dict[str, list[str]] = {}
    for title, name in re.findall(r"╭─ (\w+)|│ ([\w-]+) +\S", page):
        found.setdefault(title, []) if title else found[list(found)[-1]].append(name)
    assert list(found) == ["Run", "Look", "Steer", "Operate"]
    assert [name for names in found.values() for name in names] == list(COMMANDS)
    assert len(panels(page).splitlines()) == len(COMMANDS) + len(found)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_the_flags_of_its_command_only(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """The broker's and the log's flags are told of in one line, and shown under --help-all."""
    page, whole = shown([command, "--help"], capsys), shown([command, "--help-all"], capsys)
    assert not flags(page) & SHARED
    assert flags(whole) - flags(page) >= flags(whole) & SHARED
    assert ("--help-all" in page) == bool(flags(whole) & SHARED)
    assert ("--nats-url" in page.rpartition("╯")[2]) == ("nats-url" in flags(whole))
    assert "--help-all" not in whole
    titles = re.findall(r"╭─ (\w+)", whole)
    assert titles[-1] == "Log" or "Log" not in titles


@pytest.mark.parametrize("command", CATALOGUE, ids=lambda command: command.name)
def test_help_has_an_example_that_is_a_correct_call(
    capsys: pytest.CaptureFixture[str], command: CommandEntry
) -> None:
    """The example of a command's help is a call of that command, and its flags and arguments are known."""
    assert f"\nExample: scheduler {command.example}\n" in shown([command.name, "--help"], capsys)
    tokens = shlex.split(command.example.partition(" >")[0])
    called, bound, _ = build_app().parse_args(tokens, exit_on_error=False, print_error=False)
    assert tokens[0] == command.name
    assert called.__name__.rstrip("_").replace("_", "-") == command.name
    assert bound.arguments or len(tokens) == 1


def test_the_version_is_that_of_the_project(capsys: pytest.CaptureFixture[str]) -> None:
    """--version prints the version and nothing else."""
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_the_version_loads_nothing() -> None:
    """--version answers without importing what serving takes."""
    code = (
        "import sys; from scheduler.cli import main; main(['--version']);"
        "print([m for m in ('trio', 'nats', 'rich', 'cyclopts', 'jinja2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", ["list", "status b", "why b", "timeline b", "cancel b", "limit b *=5"])
def test_what_asks_a_scheduler_loads_little_before_it_connects(command: str) -> None:
    """A command that asks has loaded no rendering, no templates and no structlog when it connects."""
    code = f"""
import sys
import scheduler.commands.session as session
from scheduler.cli import main
HEAVY = ("structlog", "rich", "jinja2", "scheduler.local", "scheduler.log")
session.run_async = lambda _: print([module for module in HEAVY if module in sys.modules])
main({command.replace("*", "*.*.*").split()!r})
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]"]


def test_a_service_without_metrics_loads_no_server() -> None:
    """Nor a library for metrics: they take a tenth of a second, and megabytes."""
    code = (
        "import sys, scheduler.process;"
        "print([m for m in ('hypercorn', 'starlette', 'prometheus_client', 'httpx2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_module_runs() -> None:
    """`python -m scheduler` is the command line, exit codes included."""
    tokens = [sys.executable, "-m", "scheduler", "--grace", "soon"]
    done = subprocess.run(tokens, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


# validate, and the local part of run.


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Write a build to a file and give its name."""

    def write(document: Any) -> str:
        path = tmp_path / "build.json"
        path.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
        return str(path)

    return write


def test_a_valid_build_is_described(capsys: pytest.CaptureFixture[str], write: Any) -> None:
    """Of a valid build its size is told."""
    assert cli.main(["validate", write(read_example("create"))]) == 0
    assert "is fine: 7 components, 11 edges, longest chain 5" in capsys.readouterr().out


def broken() -> dict[str, Any]:
    document = generate(10)
    document["changes"][3]["_action"] = "explode"
    document["edges"].append({"source": "nobody::home", "destination": "vpc::node-00000"})
    return document


def test_what_was_probably_meant_otherwise_is_a_warning(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, write: Any
) -> None:
    """Warnings stand beside the verdict on standard error; the exit code stays 0."""
    monkeypatch.setenv("SCHEDULER_STOR", "ernest")
    document = json.loads(read_example("create"))
    document["changes"][0]["_time_out"] = 5
    name = write({**document, "options": {"on_eror": "\x1b[2J"}})
    assert cli.main(["validate", name]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{name} is fine: ")
    assert err.splitlines() == [
        f"scheduler: {name} has 2 warnings:",
        f"  {name}:1: vpc::test-vpc._time_out: is unknown and has no effect; did you mean '_timeout'?",
        f"  {name}:1: options.on_eror: is unknown and has no effect; did you mean 'on_error'?",
        "scheduler: warning: SCHEDULER_STOR is none of our variables; did you mean SCHEDULER_STORE?",
    ]


def test_the_service_tells_of_misspelt_variables_at_start(
    served: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that is nearly one of ours is a line in the log, without its value."""
    monkeypatch.setenv("SCHEDULER_PASWORD", "hunter2")
    with structlog.testing.capture_logs() as logs:
        assert cli.main(["serve"]) == 0
    (line,) = logs
    assert line["hint"] == "SCHEDULER_PASWORD is none of our variables; did you mean SCHEDULER_PASSWORD?"
    assert served


@pytest.mark.parametrize("command", ["validate", "run"])
def test_every_problem_is_listed_with_its_place(
    capsys: pytest.CaptureFixture[str], write: Any, command: str
) -> None:
    """An invalid build is refused with all that is wrong before anything is connected to."""
    assert cli.main([command, write(broken())]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "2 problems" in err.splitlines()[0]
    assert "changes[3]._action" in err
    assert "nobody::home" in err


@pytest.mark.parametrize("command", ["validate", "run"])
@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[]", b"\x00", b"[" * 100_000])
def test_what_is_no_build_is_said_clearly(
    capsys: pytest.CaptureFixture[str], write: Any, command: str, data: bytes
) -> None:
    """A file of another kind is a problem like others, never a traceback."""
    assert cli.main([command, write(data)]) == 1
    assert "has 1 problem" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["validate", "run"])
def test_a_file_that_cannot_be_read_is_said_clearly(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    """No file, or a folder: one line that names it."""
    assert cli.main([command, str(tmp_path / "none")]) == 1
    assert cli.main([command, str(tmp_path)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"scheduler: cannot read '{tmp_path}") for line in lines)


def test_a_dash_is_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build can be piped in."""
    stdin = io.TextIOWrapper(io.BytesIO(read_example("delete")))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert cli.main(["validate", "-"]) == 0
    assert "- is fine" in capsys.readouterr().out


def test_limits_are_those_of_the_flags(capsys: pytest.CaptureFixture[str], write: Any) -> None:
    """A build that a limit forbids is refused with the limit's name."""
    assert cli.main(["validate", "--max-changes", "9", write(generate(10))]) == 1
    assert "max_changes" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["validate", "run", "plan", "graph"])
def test_an_action_that_no_build_has_is_refused_as_a_flag(
    capsys: pytest.CaptureFixture[str], write: Any, command: str
) -> None:
    """A build is one of the ten that a scheduler takes."""
    assert cli.main([command, write(generate(1)), "--action", "build.explode"]) == 2
    err = capsys.readouterr().err
    assert "--action (SCHEDULER_ACTION): 'build.explode' is not one of: build.create," in err


@pytest.mark.parametrize("command", ["validate", "plan", "graph"])
def test_an_action_that_no_build_has_is_passed_over_in_a_file(
    capsys: pytest.CaptureFixture[str], write: Any, command: str
) -> None:
    """It is then taken as a creation, and that is said; not so where the command line says what it is."""
    file = write(generate(1) | {"action": "build.explode"})
    assert cli.main([command, file]) == 0
    err = capsys.readouterr().err
    assert "no build has the action 'build.explode'; it is taken as build.create" in err
    assert cli.main([command, file, "--action", "build.delete"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("own", "flag", "expected"),
    [
        ("", [], "build.create"),
        (None, [], "build.create"),
        ("service.sync", [], "service.sync"),
        ("service.sync", ["--action", "build.delete"], "build.delete"),
    ],
)
def test_a_file_is_what_the_command_line_says_or_else_what_it_says_itself(
    capsys: pytest.CaptureFixture[str], write: Any, own: str | None, flag: list[str], expected: str
) -> None:
    """What Ernest's mapper makes says nothing, and is a creation then."""
    assert cli.main(["plan", "--json", write(generate(1) | {"action": own}), *flag]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["action"] == expected
    assert err == ""


def test_an_unreachable_broker_is_said_and_waited_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, write: Any
) -> None:
    """With nobody at the broker's address, it says so at once, gives up in the end, and exits with 1."""
    monkeypatch.setattr("scheduler.commands.session.CONNECT_TIMEOUT", 0.6)
    assert cli.main(["run", write(generate(1)), "--nats-url", "nats://127.0.0.1:1"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "cannot connect to nats://127.0.0.1:1" in lines[0]
    assert "no connection to a broker within 0.6 s" in lines[1]


@pytest.mark.usefixtures("_log_as_it_was")
@pytest.mark.parametrize("json_wanted", [False, True])
def test_a_broker_that_the_doctor_cannot_reach_is_a_finding(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    json_wanted: bool,
) -> None:
    """It is told on standard output, as everything that the doctor finds, and the exit code is 1."""
    monkeypatch.setattr("scheduler.commands.session.CONNECT_TIMEOUT", 0.6)
    flags = ["--json"] if json_wanted else []
    assert cli.main(["doctor", "--nats-url", "nats://127.0.0.1:1", *flags]) == 1
    out = capsys.readouterr().out
    assert "no connection to a broker within 0.6 s" in " ".join(out.split())
    if json_wanted:
        (finding,) = json.loads(out)["findings"]
        assert (finding["check"], finding["level"]) == ("connection", "failure")


def test_the_permissions_are_printed_as_they_are_shipped(capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed can be written to a file, and given to nats-server."""
    assert cli.main(["permissions"]) == 0
    shipped = ROOT / "scheduler" / "permissions" / "nats-server.conf"
    assert capsys.readouterr().out == shipped.read_text()


def test_the_permissions_name_the_streams_of_providers(capsys: pytest.CaptureFixture[str]) -> None:
    """What the service takes beside that, where replies are captured apart."""
    assert cli.main(["permissions", "--capture-providers", "aws,gcp"]) == 0
    out = capsys.readouterr().out
    shipped = (ROOT / "scheduler" / "permissions" / "nats-server.conf").read_text()
    more = [line for line in out.splitlines() if line not in shipped.splitlines()]
    assert [line for line in out.splitlines() if line not in more] == shipped.splitlines()
    printed = set(re.findall(r'"([^"]+)"', "\n".join(more)))
    needed = {need.line for need in publishes("jetstream", ("aws", "gcp"))}
    assert printed == needed - {need.line for need in publishes("jetstream")}
    assert len(printed) == 12


# With a real broker.


@pytest.mark.integration
def test_one_command_runs_everything(capsys: pytest.CaptureFixture[str], tmp_path: Path, write: Any) -> None:
    """run --embedded --simulate needs nothing else, and exits with 0 when the build is done."""
    name = write(read_example("create"))
    flags = [
        "--embedded",
        "--simulate",
        "--latency",
        "0.05",
        "--jitter",
        "0",
        "--data-dir",
        str(tmp_path / "d"),
    ]
    assert cli.main(["run", name, *flags]) == 0
    out = capsys.readouterr().out
    assert "done    elb::test-elb" in out
    assert "done  7 components in" in out


@pytest.mark.integration
def test_a_failing_build_exits_with_1(capsys: pytest.CaptureFixture[str], tmp_path: Path, write: Any) -> None:
    """When a component fails, its error is shown and the exit code is 1."""
    flags = [
        "--embedded",
        "--simulate",
        "--failure-rate",
        "1",
        "--latency",
        "0",
        "--data-dir",
        str(tmp_path / "d"),
    ]
    assert cli.main(["run", write(read_example("create")), *flags]) == 1
    out = capsys.readouterr().out
    assert "error   vpc::test-vpc: simulated failure" in out
    assert "errored after" in out


@pytest.mark.integration
@pytest.mark.parametrize("tokens", [["--example", "delete"], ["--components", "200"]])
def test_the_demo_ends_well(capsys: pytest.CaptureFixture[str], tokens: list[str]) -> None:
    """The demo of either kind exits with 0."""
    assert cli.main(["demo", "--latency", "0.01", "--jitter", "0", *tokens]) == 0
    assert "\ndone  " in capsys.readouterr().out


@pytest.mark.integration
def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    """`demo | head -1` leaves no traceback behind."""
    tokens = [sys.executable, "-m", "scheduler", "demo", "--components", "2000", "--failure-rate", "0.5"]
    with subprocess.Popen(
        tokens, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=30) == 1


@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_an_embedded_run(tmp_path: Path, number: signal.Signals) -> None:
    """Interrupted, a run with its own scheduler says that the build was stopped, and exits accordingly."""
    path = tmp_path / "build.json"
    path.write_bytes(read_example("create"))
    tokens = [
        sys.executable,
        "-m",
        "scheduler",
        "run",
        str(path),
        "--embedded",
        "--simulate",
        "--jitter",
        "0",
    ]
    with subprocess.Popen(
        tokens, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        assert "vpc::test-vpc" in process.stdout.readline()
        process.send_signal(number)
        assert process.wait(timeout=30) == 128 + number
        page, line = process.stderr.read().splitlines()
        assert page.startswith("scheduler: the page is at http://127.0.0.1:")
        assert line.startswith("scheduler: interrupted: demo-create was stopped")


@pytest.mark.integration
def test_no_scheduler_is_said_with_the_cure(
    capsys: pytest.CaptureFixture[str], nats_server: Any, write: Any
) -> None:
    """With a broker but no scheduler the answer comes at once, and says what to do."""
    assert cli.main(["run", write(generate(1)), "--nats-url", nats_server.url]) == 1
    err = capsys.readouterr().err
    assert "no scheduler answers on build.create" in err
    assert "scheduler serve" in err


@pytest.mark.integration
def test_a_build_too_large_for_the_broker_is_said_with_the_limit(
    capsys: pytest.CaptureFixture[str], start_nats_server: Any, write: Any
) -> None:
    """A build over max_payload is refused with both sizes."""
    server = start_nats_server({"max_payload": 4096})
    assert cli.main(["run", write(generate(100)), "--nats-url", server.url]) == 1
    assert re.search(r"takes [\d,]+ bytes, .* 4,096 bytes: raise max_payload", capsys.readouterr().err)


@pytest.mark.integration
def test_validate_asks_which_requests_nobody_takes(
    capsys: pytest.CaptureFixture[str], nats_server: Any, write: Any
) -> None:
    """validate --connectors lists the requests without a connector, with how many components each."""
    name = write(generate(8))
    assert cli.main(["validate", name, "--connectors", "--nats-url", nats_server.url]) == 1
    assert "no connector takes vpc.create.aws (2 components)" in capsys.readouterr().out
