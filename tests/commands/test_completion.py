"""Completion in shells: what is offered where, and that nothing else ever reaches the shell."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.feeds import JSON
from support.shell import FakeScheduler

from scheduler import cli
from scheduler.cli import build_app
from scheduler.commands import completers, topics
from scheduler.commands.catalogue import NAMES
from scheduler.commands.completion import candidates, in_bash, split

ROOT = Path(__file__).parent.parent.parent
BREAKS = " \t\n\"'><=;|&(:"
BUILDS = {"prod-1": "running", "prod-2": "paused"}
FINISHED = {"prod-0": "done"}
Captured = pytest.CaptureFixture[str]


def offered(*words: str) -> list[str]:
    """What is offered in the place of the last word."""
    return [value for value, _ in candidates(build_app(), words)]


COMPONENTS = ["vpc::web", "vpc::db", "approve::go"]


@pytest.fixture
def reached(scheduler: FakeScheduler, monkeypatch: pytest.MonkeyPatch) -> FakeScheduler:
    """A scheduler with builds, that a shell's question reaches."""

    def builds(question: JSON) -> JSON:
        known = {**BUILDS, **(FINISHED if question["all"] else {})}
        return {"builds": [{"id": id_, "status": status} for id_, status in known.items()], "next": None}

    scheduler.answers["list"] = builds
    states = {"vpc::web": "running", "vpc::db": "waiting", "approve::go": "gated"}
    components = [{"id": id_, "state": state} for id_, state in states.items()]
    scheduler.answers["get"] = lambda _: {"id": "prod-1", "components": components, "next": None}
    monkeypatch.setattr("scheduler.bus.nats.open_bus", scheduler.open)
    return scheduler


# What is offered where.


@pytest.mark.parametrize("before", [[], ["--nats-url", "x"], ["--store=memory"], ["--embedded"]])
def test_commands_are_offered_where_one_may_stand(before: list[str]) -> None:
    """Behind our name, and behind flags and their values, commands are offered, with their summaries."""
    assert offered(*before, "") == list(NAMES)
    assert candidates(build_app(), [*before, "sta"]) == [("status", "Show the current state of a build.")]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("status --comp", ["--components"]),
        ("status --n", ["--nats-url", "--nkey"]),
        ("--nats-url x cancel --no", ["--now"]),
        ("status --help", ["--help", "--help-all"]),
        ("--help", ["--help", "--help-all"]),
        ("--sto", ["--store", "--store-timeout"]),
        ("serve --store m", ["memory"]),
        ("--store m", ["memory"]),
        ("serve --store=m", ["--store=memory"]),
        ("run --action build.c", ["build.create"]),
        ("graph x --format s", ["svg"]),
        ("list --status canc", ["cancelled"]),
        ("list --sort d", ["duration"]),
        ("completion b", ["bash"]),
        ("pause --rea", ["--reason"]),
        ("qqqq x", []),
        ("status --qqqq x --comp", ["--components"]),
    ],
)
def test_flags_and_their_words_are_offered(words: str, expected: list[str]) -> None:
    """A flag's name is completed, and its value where it is one of a few words."""
    assert offered(*words.split()) == expected


def test_topics_are_offered_with_their_summaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind `help` stand the documents."""
    monkeypatch.setattr(topics, "folder", lambda: tmp_path)
    (tmp_path / "wire.md").write_text("# The wire\n\nEverything is JSON.\n")
    assert candidates(build_app(), ["help", ""]) == [("wire", "Everything is JSON.")]


def test_files_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a build is read, JSON files and folders are offered; where any file will do, every file."""
    for name in ("a.json", "b.txt", ".hidden.json"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "c.json").touch()
    monkeypatch.chdir(tmp_path)
    assert offered("run", "") == ["a.json", "folder/"]
    assert offered("validate", "folder/") == ["folder/c.json"]
    assert offered("plan", ".") == [".hidden.json"]
    assert offered("timeline", "x", "--trace", "") == ["a.json", "b.txt", "folder/"]
    assert offered("simulate", "--build", "") == ["a.json", "folder/"]
    assert offered("run", "a.json", "--behaviour", "") == ["a.json", "folder/"]
    assert offered("report", "x", "--output", "b") == ["b.txt"]
    assert offered("timeline", "x", "--trace=b") == ["--trace=b.txt"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert offered("run", "~/fol") == ["~/folder/"]
    (tmp_path / "folder" / "d.yaml").touch()
    assert (
        offered("run", "folder/")
        == offered("graph", "x", "--values", "folder/")
        == [
            "folder/c.json",
            "folder/d.yaml",
        ]
    )
    assert offered("run", "no/such/") == offered("run", "~nobody-of-this-name/") == []


@pytest.mark.parametrize("name", ["b.yaml", "b.json"])
def test_the_options_of_a_file_are_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As paths that await a value; a file that is not there, or is no build, offers none."""
    monkeypatch.chdir(tmp_path)
    options = {"size": 1, "tags": {"env": "x", "a.b": [1]}, "none": {}}
    (tmp_path / name).write_text(json.dumps({"options": options}))
    assert offered("run", name, "--set", "") == ["size=", "tags.env=", r"tags.a\.b=", "none="]
    assert offered("plan", name, "--set", "tags.e") == ["tags.env="]
    assert offered("graph", name, "--set=si") == ["--set=size="]
    assert offered("validate", name, "--id", "") == ["auto"]
    (tmp_path / name).write_text("[")
    assert offered("run", name, "--set", "") == offered("run", "gone", "--set", "") == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("cancel", list(BUILDS)),
        ("extend", list(BUILDS)),
        ("status", [*BUILDS, *FINISHED]),
        ("retry", [*BUILDS, *FINISHED]),
        ("export", [*BUILDS, *FINISHED]),
        ("status --json", [*BUILDS, *FINISHED]),
        ("why prod-1", COMPONENTS),
        ("skip prod-1", COMPONENTS),
        ("graph prod-1 --around", COMPONENTS),
        ("why prod-1 vpc::web", []),
        ("approve prod-1", ["approve::go"]),
        ("reject prod-1", ["approve::go"]),
        ("report", [*BUILDS, *FINISHED]),
        ("report prod-1 --component", COMPONENTS),
        ("wait", [*BUILDS, *FINISHED]),
    ],
)
@pytest.mark.usefixtures("reached")
def test_builds_and_components_are_asked_of_a_scheduler(words: str, expected: list[str]) -> None:
    """Ids of builds are offered, finished ones where they make sense, and the components of a build."""
    assert sorted(offered(*words.split(), "")) == sorted(expected)


def test_a_build_is_told_with_its_status(reached: FakeScheduler) -> None:
    """Beside an id stands how the build or the component is."""
    assert candidates(build_app(), ["cancel", ""]) == list(BUILDS.items())
    assert candidates(build_app(), ["why", "prod-1", "vpc::w"]) == [("vpc::web", "running")]
    assert [verb for verb, _ in reached.asked] == ["list", "get"]


def test_the_scheduler_is_the_one_of_the_flags(
    reached: FakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question goes where the command's would: flags count before variables."""
    asked = []

    def opened(options: object, **more: object) -> object:
        asked.append(options.servers)  # type: ignore[attr-defined]
        return reached.open(options, **more)

    monkeypatch.setattr("scheduler.bus.nats.open_bus", opened)
    monkeypatch.setenv("NATS_URL", "nats://variable")
    offered("status", "")
    offered("--nats-url", "nats://flag", "status", "")
    offered("status", "--nats-url=nats://behind", "")
    assert asked == [("nats://variable",), ("nats://flag",), ("nats://behind",)]


def test_contexts_are_offered_with_their_descriptions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the ``nats`` command; a file that is no context has none."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert offered("list", "--context", "") == []
    folder = tmp_path / "nats" / "context"
    folder.mkdir(parents=True)
    (folder / "prod.json").write_text('{"description": "Handle\\nwith care"}')
    (folder / "dev.json").write_text("nonsense")
    (folder / "notes.txt").touch()
    found = candidates(build_app(), ["serve", "--context", ""])
    assert list(found) == [("dev", ""), ("prod", "Handle with care")]
    assert offered("list", "--context=p") == ["--context=prod"]


# Silence.


@pytest.mark.parametrize("what", ["nobody", "silent", "refused", "forbidden", "nonsense", "wrong flag"])
def test_whatever_happens_nothing_is_said(
    reached: FakeScheduler, capsys: Captured, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Where a scheduler does not answer, or not well, nothing is offered and nothing is said."""
    monkeypatch.setattr(completers, "DEADLINE", 0.05)
    words = ["status", ""]
    match what:
        case "nobody":
            reached.there = False
        case "silent":
            reached.silent = True
        case "refused":
            reached.refuse("list", "internal", "no")
        case "forbidden":
            reached.forbidden.add("scheduler.build.list")
        case "nonsense":
            reached.say("list", {"builds": [1, {"id": 2}, {}], "next": None})
        case _:
            words = ["status", "--nats-url", "::", ""]
    began = time.monotonic()
    assert cli.main(["__complete", "zsh", *words]) == 0
    assert capsys.readouterr() == ("", "")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("arguments", [[], ["zsh"], ["bash"], ["bash", "scheduler 'st"], ["qqqq", "a", "b"]])
def test_any_call_of_a_shell_is_answered(capsys: Captured, arguments: list[str]) -> None:
    """A call that no script of ours makes is no error either."""
    assert cli.main(["__complete", *arguments]) == 0
    assert capsys.readouterr().err == ""


def test_what_a_terminal_would_obey_is_not_offered(
    reached: FakeScheduler, capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id or a file that is not printable is left out; of a status only the status is."""
    builds = [
        {"id": "a\x1b[2J"},
        {"id": "b\nc"},
        {"id": "d", "status": "\x1b[2J"},
        {"id": "e", "status": "done"},
    ]
    reached.say("list", {"builds": builds, "next": None})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f\x1b.json").touch()
    assert cli.main(["__complete", "fish", "graph", ""]) == 0
    assert capsys.readouterr().out == "d\ne\tdone\n"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A port that is taken; whether anybody listens there is left open."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken


def url_of(listener: socket.socket) -> str:
    return f"nats://127.0.0.1:{listener.getsockname()[1]}"


def test_a_broker_that_is_not_there_is_not_waited_for(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a connection is refused there is nothing to wait for, whatever the deadline."""
    monkeypatch.setattr(completers, "DEADLINE", 60.0)
    began = time.monotonic()
    assert offered("status", "--nats-url", url_of(listener), "") == []
    assert time.monotonic() - began < 10


def test_a_broker_that_says_nothing_holds_nobody_up(listener: socket.socket) -> None:
    """Where nobody answers, the process ends after a second or so, and has said nothing."""
    listener.listen()
    tokens = [
        sys.executable,
        "-m",
        "scheduler",
        "__complete",
        "zsh",
        "status",
        "--nats-url",
        url_of(listener),
        "",
    ]
    began = time.monotonic()
    done = subprocess.run(tokens, cwd=ROOT, capture_output=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")
    assert time.monotonic() - began < 10


def test_files_are_offered_without_a_scheduler(
    reached: FakeScheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a file or a build may stand, nobody there to ask for builds is no reason to offer no files."""
    reached.there = False
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.json").touch()
    assert offered("graph", "") == ["a.json"]


# The line of bash.


@pytest.mark.parametrize(
    ("line", "words", "quote"),
    [
        ("scheduler ", [""], ""),
        ("scheduler st", ["st"], ""),
        ("scheduler status ", ["status", ""], ""),
        ("scheduler why b vpc::w", ["why", "b", "vpc::w"], ""),
        ("scheduler run a\\ b", ["run", "a b"], ""),
        ("scheduler run 'a b", ["run", "a b"], "'"),
        ('scheduler run "a b', ["run", "a b"], '"'),
        ("scheduler run 'a b' ", ["run", "a b", ""], ""),
        ("scheduler run a\\", ["run", "a"], ""),
        ("", [], ""),
    ],
)
def test_a_line_is_taken_apart_as_bash_does(line: str, words: list[str], quote: str) -> None:
    """Quotes and backslashes are taken away; what is still open at the cursor is told."""
    assert split(line) == (words, quote)


@pytest.mark.parametrize(
    ("value", "typed", "quote", "breaks", "expected"),
    [
        ("vpc::web", "", "", BREAKS, "vpc::web"),
        ("vpc::web", "vpc:", "", BREAKS, ":web"),
        ("vpc::web", "vpc::w", "", BREAKS, "web"),
        ("vpc::web", "vpc::w", "", "=", "vpc::web"),
        ("vpc::web", "vpc::w", '"', BREAKS, "vpc::web"),
        ("--store=memory", "--store=m", "", BREAKS, "memory"),
        ("a b$(c).json", "a", "", BREAKS, "a\\ b\\$\\(c\\).json"),
        ("a b", "a", "'", BREAKS, "a b"),
    ],
)
def test_a_candidate_stands_where_bash_begins_its_word(
    value: str, typed: str, quote: str, breaks: str, expected: str
) -> None:
    """Bash breaks words at colons: it gets what stands behind the last one, escaped if no quote is open."""
    assert in_bash(value, typed, quote, breaks) == expected


# Real shells.


@pytest.fixture
def program(tmp_path: Path) -> dict[str, str]:
    """The environment in which `scheduler` is this code."""
    file = tmp_path / "bin" / "scheduler"
    file.parent.mkdir()
    file.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m scheduler "$@"\n')
    file.chmod(0o755)
    (tmp_path / "vpc::a b.json").touch()
    without = {
        name: value for name, value in os.environ.items() if not name.startswith(("SCHEDULER_", "NATS_"))
    }
    return {
        **without,
        "PATH": f"{file.parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "TERM": "dumb",
        # Where there is no broker, whatever runs on this machine.
        "NATS_URL": "nats://127.0.0.1:1",
    }


def run(shell: str, script: str, environment: dict[str, str], *flags: str) -> list[str]:
    """What a script prints in a shell; nothing is to stand on standard error."""
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"there is no {shell}")
    done = subprocess.run(
        [path, *flags, "-c", script],
        env=environment,
        cwd=environment["HOME"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


BASH = """
source <(scheduler completion bash)
complete -p scheduler
try() {
    COMP_LINE=$1 COMP_POINT=${#1} COMP_WORDS=(scheduler) COMP_CWORD=0
    _scheduler_complete scheduler
    printf '%s\\n' "[${COMPREPLY[*]}]"
}
try 'scheduler stat'
try 'scheduler serve --store '
try 'scheduler run vpc:'
try 'scheduler run "vpc:'
try 'scheduler status '
try 'scheduler qqqq '
"""


def test_bash_completes(program: dict[str, str]) -> None:
    """The script registers a function, that offers what was found, in words as bash breaks them."""
    assert run("bash", BASH, program, "--norc") == [
        "complete -F _scheduler_complete scheduler",
        "[status]",
        "[auto jetstream ernest memory]",
        "[:a\\ b.json]",
        "[vpc::a b.json]",
        "[]",
        "[]",
    ]


def test_fish_completes(program: dict[str, str]) -> None:
    """The script of fish offers candidates with what is said about them."""
    script = (
        "scheduler completion fish | source; complete -C 'scheduler stat'; complete -C 'scheduler run vpc'"
    )
    assert run("fish", script, program, "--no-config") == [
        "status\tShow the current state of a build.",
        "vpc::a b.json",
    ]


def test_zsh_takes_the_script(program: dict[str, str]) -> None:
    """The script of zsh registers its function when it is sourced."""
    script = "compdef() { print $*; }; source <(scheduler completion zsh); whence -w _scheduler"
    assert run("zsh", script, program, "-f") == ["_scheduler scheduler", "_scheduler: function"]
