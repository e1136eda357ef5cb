"""The command line in words: flags before the command, flags that there are not, and nothing at all."""

import io
import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from scheduler import cli
from scheduler.commands.catalogue import NAMES as COMMANDS
from scheduler.commands.usage import command_first

ALL = ", ".join(COMMANDS)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would be served is noted, and nothing runs."""
    seen: list[str] = []

    class Session:
        @staticmethod
        def run_async(_: Any) -> int:
            seen.append("served")
            return 0

    monkeypatch.setitem(sys.modules, "scheduler.commands.session", Session)
    monkeypatch.setattr("scheduler.log.configure_logging", lambda *_: None)
    return seen


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["run", "--dry-run", "f.json"], "`scheduler run` has no flag --dry-run. See scheduler run --help"),
        (["run", "f.json", "--dry-run"], "`scheduler run` has no flag --dry-run. See scheduler run --help"),
        (
            ["run", "--dry-run=yes", "f.json"],
            "`scheduler run` has no flag --dry-run. See scheduler run --help",
        ),
        (
            ["plan", "--jsn", "f.json"],
            "`scheduler plan` has no flag --jsn: did you mean --json? See scheduler plan --help",
        ),
        (
            ["graph", "--formt", "svg", "x"],
            "`scheduler graph` has no flag --formt: did you mean --format? See scheduler graph --help",
        ),
        (["--foo"], "`scheduler serve` has no flag --foo. See scheduler serve --help"),
        (["list", "--store", "x"], "`scheduler list` has no flag --store. See scheduler list --help"),
        (["--store", "x", "list"], "`scheduler list` has no flag --store. See scheduler list --help"),
        (
            ["status", "b", "-\x1b[2J"],
            "`scheduler status` has no flag -\\x1b[2J. See scheduler status --help",
        ),
        (
            ["run", "a.json", "b.json"],
            "`scheduler run` takes FILE, and 'b.json' is one too many. See scheduler run --help",
        ),
        (
            ["serve", "x"],
            "`scheduler serve` takes flags only, and 'x' is one too many. See scheduler serve --help",
        ),
        (
            ["cancel", "b", "--now=2"],
            (
                "`scheduler cancel` takes --now alone, or with true or false: '2' is neither. "
                "See scheduler cancel --help"
            ),
        ),
        (
            ["list", "--json=on"],
            (
                "`scheduler list` takes --json alone, or with true or false: 'on' is neither. "
                "See scheduler list --help"
            ),
        ),
        (["status"], "`scheduler status` needs BUILD. See scheduler status --help"),
        (["list", "--nats-url"], "`scheduler list` needs a value for --nats-url. See scheduler list --help"),
        (["lisst", "--all"], "there is no command 'lisst': did you mean list? The commands are " + ALL),
        (
            ["--pasword", "hunter2"],
            "`scheduler serve` has no flag --pasword: did you mean --password? See scheduler serve --help",
        ),
        (["lisst"], "there is no command 'lisst': did you mean list? The commands are " + ALL),
        (
            ["--nats-url", "x", "lisst"],
            "there is no command 'lisst': did you mean list? The commands are " + ALL,
        ),
    ],
)
def test_what_there_is_not_is_named(
    capsys: pytest.CaptureFixture[str], tokens: list[str], message: str
) -> None:
    """A wrong or missing flag, argument or command is named, with the one that was perhaps meant."""
    assert cli.main(tokens) == 2
    assert capsys.readouterr().err == f"scheduler: {message}\n"


def test_an_unknown_command_is_answered_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing is like what was typed, every command is named."""
    assert cli.main(["qqqq"]) == 2
    assert capsys.readouterr().err == f"scheduler: there is no command 'qqqq': the commands are {ALL}\n"


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ("--nats-url X list", "list --nats-url X"),
        ("--nats-url=X list --all", "list --nats-url=X --all"),
        ("--json --user list list", "list --json --user list"),
        ("--embedded --simulate run f.json", "run --embedded --simulate f.json"),
        ("--tls-first --latency 5 simulate", "simulate --tls-first --latency 5"),
        ("--depth 3 graph b", "graph --depth 3 b"),
        ("--help list", "list --help"),
        ("--name list", "--name list"),
        ("--embedded", "--embedded"),
        ("list --nats-url X", "list --nats-url X"),
        ("-- list", "-- list"),
        ("", ""),
    ],
)
def test_flags_may_stand_before_the_command(tokens: str, expected: str) -> None:
    """The command is found behind flags and their values; without one they are flags of the service."""
    assert command_first(tokens.split(), COMMANDS) == (expected.split(), None)


def test_flags_before_the_command_reach_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit that stands before ``validate`` is the one that counts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.json").write_text('{"id": "b", "action": "build.create", "changes": [{}, {}]}')
    assert cli.main(["--max-changes", "1", "validate", "f.json"]) == 1
    assert "changes: 2 of them; max_changes is 1" in capsys.readouterr().err


def typed(monkeypatch: pytest.MonkeyPatch, *, stdin: bool, stdout: bool) -> Terminal:
    screen = Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal() if stdin else io.StringIO())
    monkeypatch.setattr(sys, "stdout", screen if stdout else io.StringIO())
    return screen


def test_nothing_typed_at_a_terminal_is_answered_with_help(
    served: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our name alone prints the commands, within 80 columns, and how to serve; nothing runs."""
    screen = typed(monkeypatch, stdin=True, stdout=True)
    assert cli.main([]) == 0
    text = screen.getvalue()
    assert served == []
    assert "scheduler serve " in text
    assert all(f"\n  {command} " in text for command in COMMANDS)
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(("stdin", "stdout"), [(True, False), (False, True), (False, False)])
def test_anywhere_else_nothing_typed_serves(
    served: list[str], monkeypatch: pytest.MonkeyPatch, stdin: bool, stdout: bool
) -> None:
    """In a unit file, a container or a pipe our name alone serves, as the Go binary did."""
    typed(monkeypatch, stdin=stdin, stdout=stdout)
    assert cli.main([]) == 0
    assert served == ["served"]


@pytest.mark.parametrize("tokens", [["serve"], ["--embedded"], ["--log-level", "info"]])
def test_at_a_terminal_a_flag_or_the_command_serves(
    served: list[str], monkeypatch: pytest.MonkeyPatch, tokens: Sequence[str]
) -> None:
    """A flag of the service, or its name, serves at a terminal as well."""
    typed(monkeypatch, stdin=True, stdout=True)
    assert cli.main(tokens) == 0
    assert served == ["served"]


def test_the_module_serves_at_a_terminal_too() -> None:
    """``python -m scheduler`` alone serves wherever it is typed."""
    leader, terminal = pty.openpty()
    try:
        process = subprocess.run(
            [sys.executable, "-m", "scheduler"],
            env={**os.environ, "SCHEDULER_GRACE": "nonsense"},
            stdin=terminal,
            stdout=terminal,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(leader)
        os.close(terminal)
    assert process.returncode == 2
    assert b"SCHEDULER_GRACE" in process.stderr
