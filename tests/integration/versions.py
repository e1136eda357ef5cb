"""Other versions of the scheduler: earlier ones, built from the repository's history, and one to come."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from integration.harness import ROOT

SHARES = "c2a931752e125e1c246c24b3595398bdfe6742bc"
"""First commit in which several schedulers share the builds of a broker, and work."""
WHOLE = "c314640a7c5771cff91b17c49604382ead2aa458"
"""First version that was whole: it keeps no lease, so builds cannot be shared with it."""

NEWER = """

class _Posted(_Wire, tag="posted"):
    component: str
    attempt: str
    time: _Moment = None


_TO_WIRE[Sent] = lambda event: _Posted(event.component, event.attempt, event.time)
_FROM_WIRE[_Posted] = lambda wire: Sent(wire.component, wire.attempt, wire.time)
_decode = msgspec.json.Decoder(_AnyWire | _Posted).decode
"""
"""Code at the end of `scheduler.journal.records.wire` with which logs have an event that is not known here:
it stands in the place of ``sent``."""


def make_newer(folder: Path) -> Path:
    """Make a version with a new event in its logs; return the folder to import it from."""
    shutil.copytree(ROOT / "scheduler", folder / "scheduler")
    with (folder / "scheduler" / "journal" / "records" / "wire.py").open("a") as file:
        file.write(NEWER)
    return folder


def install(revision: str, folder: Path) -> Path:
    """Build a wheel of a commit, and install it without its dependencies; return the folder to import from.

    Skips the test where the history of the repository is not there.
    """
    source, wheels, site = folder / "source", folder / "wheels", folder / "site"
    source.mkdir(parents=True)
    subprocess.run(["tar", "-x", "-C", str(source)], input=_archive(revision), check=True)
    _pip("wheel", "--no-deps", "--wheel-dir", str(wheels), str(source))
    [wheel] = wheels.glob("*.whl")
    _pip("install", "--no-deps", "--no-compile", "--target", str(site), str(wheel))
    # The version that is tested here may be installed as well.
    found = subprocess.run(
        [sys.executable, "-c", "import scheduler; print(scheduler.__file__)"],
        cwd=site,
        check=True,
        capture_output=True,
        text=True,
    )
    assert Path(found.stdout).is_relative_to(site), found.stdout
    return site


def _archive(revision: str) -> bytes:
    """Return the files of a commit."""
    try:
        done = subprocess.run(["git", "archive", revision], cwd=ROOT, check=False, capture_output=True)
        if done.returncode == 0:
            return done.stdout
        why = done.stderr.decode(errors="replace").strip()
    except FileNotFoundError:
        why = "git is not installed"
    pytest.skip(
        f"NOT TESTED: this version beside an earlier one. The commit {revision} cannot be had here ({why}):"
        " that takes the whole history of the repository, as `git fetch --unshallow` gets it"
    )


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
