"""The tutorial, as somebody follows it: its files, its commands in three terminals, and its keys."""

import re
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from integration.harness import Process, eventually

pytestmark = [pytest.mark.integration, pytest.mark.long]

PAGE = Path(__file__).parents[2] / "scheduler" / "docs" / "tutorial.md"
INSTALLS = "## Write it"
"""Section before which the commands install the package: `tests/test_package.py` does the same."""
MARKS = re.compile(
    r"^```(?P<language>\w+)\n(?P<code>.*?)^```$"
    r"|[Ss]ave this(?: build)? as `(?P<file>[\w.]+)`"
    r"|[Ii]n `(?P<edited>[\w.]+)`, replace the line that calls `(?P<line>[\w.]+)`"
    r"|press (?P<key>Ctrl-.) in\s+terminal (?P<pressed>\d)"
    r"|[Tt]erminal (?P<terminal>\d)"
    r"|(?P<there>[Nn]ow start it again there|start the\s+connector\s+there|start the connector again)",
    re.MULTILINE | re.DOTALL,
)
SIGNALS = {"Ctrl-\\": signal.SIGQUIT, "Ctrl-C": signal.SIGINT}
READY = {"serve": '"ready"', "connect": '"connector is ready"'}
"""Part of the line of the log with which a command is there, by its name."""


class Step(NamedTuple):
    """A thing to do."""

    kind: str
    """``file``, ``edit``, ``type`` or ``press``."""
    where: str
    """File, or number of a terminal."""
    what: str
    more: str = ""


def steps(text: str) -> Iterator[Step]:
    """The steps of the page, in order."""
    terminal, target, line = "3", "", ""
    for mark in MARKS.finditer(text):
        if mark["file"]:
            target, line = mark["file"], ""
        elif mark["edited"]:
            target, line = mark["edited"], mark["line"]
        elif mark["key"]:
            terminal = mark["pressed"]
            yield Step("press", terminal, mark["key"])
        elif mark["terminal"]:
            terminal = mark["terminal"]
        elif mark["language"] == "console":
            yield from (Step("type", terminal, command) for command in mark["code"].splitlines())
        elif mark["language"]:
            yield Step("edit" if line else "file", target, mark["code"], line)


class Reader:
    """Somebody who follows the page, in a folder and three terminals."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.outputs: list[tuple[str, str]] = []
        """Commands that have ended, each with what it printed."""
        self._folder = folder
        self._before = 0
        """Number of VPCs before the last command."""
        self._terminals: dict[str, tuple[str, Process]] = {}
        self._stack = stack
        binaries = folder.parent / "bin"
        binaries.mkdir()
        for name, arguments in (("scheduler", "-m scheduler"), ("python", "")):
            (binaries / name).write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
            (binaries / name).chmod(0o755)
        self._variables = {"PATH": f"{binaries}:/usr/bin:/bin", "XDG_DATA_HOME": str(folder.parent / "home")}

    def take(self, step: Step) -> None:
        match step.kind:
            case "file":
                # Half a second each is for people.
                (self._folder / step.where).write_text(step.what.replace("sleep(0.5)", "sleep(0.1)"))
            case "edit":
                self._edit(self._folder / step.where, step.more, step.what)
            case "type":
                self._type(step.where, step.what)
            case _:
                self._press(step.where, SIGNALS[step.what])

    def end(self, terminal: str) -> None:
        """Await the end of what runs in a terminal."""
        if terminal in self._terminals:
            command, process = self._terminals.pop(terminal)
            assert process.wait(60) == 0, (command, process.output, process.errors)
            self.outputs.append((command, process.output))

    @property
    def _cloud(self) -> list[Path]:
        return [*(self._folder / "cloud").glob("*")]

    def _edit(self, file: Path, call: str, new: str) -> None:
        lines = file.read_text().splitlines(keepends=True)
        [at] = [index for index, line in enumerate(lines) if call in line]
        lines[at] = new
        file.write_text("".join(lines))

    def _type(self, terminal: str, command: str) -> None:
        self.end(terminal)
        self._before = len(self._cloud)
        shell = command if "|" in command else f"exec {command}"
        process = Process("sh", "-c", shell, env=self._variables, cwd=self._folder)
        self._stack.callback(process.close)
        self._terminals[terminal] = (command, process)
        name = command.split()[1]
        if command.startswith("scheduler") and name in READY:
            process.err.first(lambda line: READY[name] in line, 30, READY[name])

    def _press(self, terminal: str, number: signal.Signals) -> None:
        command, process = self._terminals.pop(terminal)
        if number is signal.SIGQUIT:
            # The reader waits for some progress on the board, which the cloud's answer comes before.
            process.err.first(lambda line: '"begun"' in line, 30, "a call")
            eventually(lambda: len(self._cloud) > self._before, "a VPC")
            _, board = self._terminals["3"]
            assert board.running
        process.stop(number)
        assert process.running is False, command


def test_the_tutorial_ends_as_it_says(tmp_path: Path) -> None:
    """Every build ends, one VPC is there twice before the gap is closed and none after it."""
    folder = tmp_path / "mine"
    folder.mkdir()
    with ExitStack() as stack:
        reader = Reader(stack, folder)
        for step in steps(PAGE.read_text().split(INSTALLS)[1]):
            reader.take(step)
        reader.end("3")
        counts = [len(said.split()) for command, said in reader.outputs if command == "ls cloud"]
        assert counts == [1, 3, 4]
        [value] = [said for command, said in reader.outputs if command.startswith("scheduler report")]
        assert re.fullmatch(r"vpc-[0-9a-f]{8}", value)
