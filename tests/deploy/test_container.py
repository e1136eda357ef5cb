"""The image's recipe: only what is locked, no rights, and nothing of the tree that it does not need."""

import fnmatch
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scheduler import __version__

STARTS = """
import os, signal, sys
from scheduler import cli

number, own = int(sys.argv[1]), os.getpid()
os.getpid = lambda: number or own
cli._dispatch = lambda tokens: os.kill(own, signal.SIGTERM)
sys.exit(cli.main(["serve"]))
"""
"""A command that is sent SIGTERM before it handles any signal, as process 1 or as it is."""
ROOT = Path(__file__).parents[2]
LINES = re.sub(r"\\\n", " ", (ROOT / ".ci" / "Containerfile").read_text()).splitlines()


def words(instruction: str) -> list[list[str]]:
    """The words behind each such instruction, in order."""
    return [line.split()[1:] for line in LINES if line.startswith(f"{instruction} ")]


def test_packages_are_those_of_the_lock() -> None:
    """By their hashes; the project itself comes without any more."""
    [_, locked, own] = [" ".join(run) for run in words("RUN")]
    assert "--require-hashes --requirement /src/.ci/requirements.lock" in locked
    assert "--no-deps --no-build-isolation /src" in own


def test_it_runs_as_a_user_without_rights() -> None:
    """The same that deployments name, by number: Kubernetes has to see that it is not root."""
    assert words("USER") == [["10001:10001"]]
    assert words("ENTRYPOINT") == [['["scheduler"]']]
    assert words("FROM")[-1] == ["python:${PYTHON}-slim"]


def test_the_version_that_is_named_is_that_of_the_package() -> None:
    """In the lines that people copy."""
    text = (ROOT / ".ci" / "Containerfile").read_text() + (ROOT / "scheduler/docs/production.md").read_text()
    assert set(re.findall(r"localhost/scheduler:(\S+)", text)) == {__version__}


def test_what_is_copied_is_in_the_tree_and_sent_to_the_builder() -> None:
    """And no key, log or environment of whoever builds is."""
    listed = [line.strip() for line in (ROOT / ".dockerignore").read_text().splitlines()]
    assert listed[0] == "*"
    sent = [line[1:] for line in listed if line.startswith("!")]
    copied = [source for line in words("COPY") if "--from=build" not in line for source in line[:-1]]
    assert sorted(copied) == sorted(sent)
    assert all((ROOT / source).exists() for source in copied)
    assert not [
        name for name in (".env", ".git", "keys", ".venv") if any(fnmatch.fnmatch(name, one) for one in sent)
    ]


def test_the_recipe_is_checked_in() -> None:
    """Nothing that it copies is ignored by git."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no working copy")
    copied = [source for line in words("COPY") if "--from=build" not in line for source in line[:-1]]
    ask = ["git", "check-ignore", ".ci/Containerfile", ".dockerignore", *copied]
    assert subprocess.run(ask, cwd=ROOT, capture_output=True, check=False).stdout == b""


@pytest.mark.parametrize(("number", "code"), [(1, 128 + signal.SIGTERM), (0, -signal.SIGTERM)])
def test_a_container_that_is_stopped_while_it_starts_ends_at_once(number: int, code: int) -> None:
    """By a handler of ours: for process 1, and for it alone, the system ignores a signal that has none."""
    started = [sys.executable, "-c", STARTS, str(number)]
    assert subprocess.run(started, cwd=ROOT, timeout=30, check=False).returncode == code
