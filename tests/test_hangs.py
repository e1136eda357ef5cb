"""A test that hangs ends as a failure that names the line, and the others are run."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PROJECT = TESTS.parent / "pyproject.toml"
pytestmark = pytest.mark.timeout(300)

PARALLEL = ("-n", "2", "--dist", "worksteal")
"""As in `noxfile.py`."""
HANGING = """
import subprocess
import threading
import time

import hypothesis
import pytest
import trio


async def forever():
    await trio.sleep_forever()  # of a task


async def test_task():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(forever)


async def test_round():
    # On one line, as it may be struck on its way back to the first.
    while True: await trio.lowlevel.checkpoint()  # of a round


async def test_block():
    threading.Event().wait()  # of a block


async def test_thread():
    await trio.to_thread.run_sync(time.sleep, 0.7)  # of a thread


async def test_deaf():
    with trio.move_on_after(3600):
        try:
            await trio.sleep_forever()  # of the deaf
        except trio.Cancelled:
            pass


def test_wait():
    threading.Event().wait()  # of a wait


def test_process():
    subprocess.run(["sleep", "3600"])  # of a process


@hypothesis.given(hypothesis.strategies.just(1))
def test_property(_):
    threading.Event().wait()  # of a property


@pytest.fixture
def leaving():
    yield
    threading.Event().wait()  # of a fixture


def test_leaving(leaving):
    raise ValueError
"""
STUBBORN = """
import time

import pytest
import trio


async def test_shield():
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()  # of a shield


def test_swallow():
    while True:
        try:
            time.sleep(3600)  # of a swallower
        except BaseException:
            pass
"""
WELL = """

@pytest.mark.timeout(60)
@pytest.mark.parametrize("_", range(10))
async def test_well(_):
    pass
"""

Pytest = Callable[..., str]


@pytest.fixture
def run_pytest(tmp_path: Path) -> Pytest:
    """Run tests with this project's settings and a time-out of half a second."""

    def run(source: str, *arguments: str) -> str:
        (tmp_path / "conftest.py").write_text('pytest_plugins = ["support.hangs"]\n')
        (tmp_path / "test_source.py").write_text(source + WELL)
        settings = ["-c", str(PROJECT), "--rootdir", str(tmp_path), "--timeout", "0.5"]
        process = subprocess.run(
            [sys.executable, "-m", "pytest", *settings, *arguments, str(tmp_path)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(TESTS)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=250,
            check=False,
        )
        assert process.returncode == 1, process.stdout
        return process.stdout

    return run


@pytest.mark.parametrize("arguments", [(), PARALLEL], ids=["alone", "parallel"])
def test_a_hang_is_a_failure_that_names_the_line(run_pytest: Pytest, arguments: tuple[str, ...]) -> None:
    """Tests that hang, in Trio or not, fail with their stacks; everything else passes."""
    output = run_pytest(HANGING, *arguments)
    for kind in ("task", "round", "block", "thread", "deaf", "wait", "process", "property"):
        assert re.search(rf"FAILED \S+::test_{kind} - .*(Hangs|$)", output), f"{kind}\n{output}"
        assert re.search(rf"  # of (a|the) {kind}", output), f"{kind}\n{output}"
    assert re.search(r"ERROR \S+::test_leaving - support.hangs.Hangs", output), output
    assert "  # of a fixture" in output
    assert "9 failed, 10 passed, 1 error in" in output


def test_what_cannot_be_ended_ends_its_worker_alone(run_pytest: Pytest) -> None:
    """A worker that a test does not let go of is given up, with the stacks; another one does the rest."""
    output = run_pytest(STUBBORN, *PARALLEL)
    for kind in ("shield", "swallow"):
        assert re.search(rf"FAILED \S+::test_{kind} - worker 'gw\d' crashed", output), output
        assert re.search(rf"::test_{kind} has not ended within 0.5 s, and cannot be ended", output), output
    assert "await trio.sleep_forever()  # of a shield" in output
    assert re.search(r'File "\S*test_source.py", line \d+ in test_swallow', output), output
    assert "2 failed, 10 passed in" in output


def test_a_run_alone_that_cannot_be_ended_ends(run_pytest: Pytest) -> None:
    """Without workers the run ends with the stacks, and as a failure."""
    output = run_pytest(STUBBORN)
    assert "test_shield has not ended within 0.5 s, and cannot be ended" in output
    assert "await trio.sleep_forever()  # of a shield" in output
