# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only
"""Builds in the form of Ernest's mapper, each message for message as the protocol says (`transcript`)."""

from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import trio
from support.transcript import EXPECTED, FOLDER, Stage, check, read
from trio.testing import MockClock

FILES = sorted(FOLDER.glob("*.txt"))


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread is no task: who waits until all tasks are blocked would not wait for it."""

    async def run_sync(function: Any, *arguments: Any, **_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return function(*arguments)

    monkeypatch.setattr("trio.to_thread.run_sync", run_sync)


def test_there_are_forty() -> None:
    """None of them got lost."""
    assert len(FILES) >= 40


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_transcript(path: Path, autojump_clock: MockClock) -> None:
    """What the store, the connectors and the submitter see is what the protocol says, and nothing else."""
    lines = list(read(path))
    stage = Stage()
    async with trio.open_nursery() as nursery:
        await stage.open(nursery)
        if not any(line.word == "start" for line in lines):
            await stage.start()
        last = "the start"
        for expected, group in groupby(lines, key=lambda line: line.word in EXPECTED):
            part = list(group)
            if expected:
                check(stage.heard(), part, f"{path.name}, after {last}")
                continue
            for line in part:
                # Of several things in a row each but the last has nothing for an answer.
                check(stage.heard(), [], f"{path.name}, before line {line.number}")
                await stage.play(line)
                last = f"line {line.number}"
        check(stage.heard(), [], f"{path.name}, at the end")
        nursery.cancel_scope.cancel()
