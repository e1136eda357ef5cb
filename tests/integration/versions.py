"""Earlier versions of the scheduler: wheels that are built from the repository's own history."""

import subprocess
import sys
from pathlib import Path

import pytest

from integration.harness import ROOT

SHARES = "4bb2bf1f45b38e2538d6731a0da2a8ccb34d4b3c"
"""First commit in which several schedulers share the builds of a broker."""
WHOLE = "c3146404a6eaa4d7a9fd5ff1a4b1d2ff9a3a1bd1"
"""First version that was whole: it keeps no lease, and can share no builds."""


def install(revision: str, folder: Path) -> Path:
    """Build a wheel of a commit, and install it without its dependencies; return where its modules are.

    Skips the test where the history of the repository is not there.
    """
    wheels, site = folder / "wheels", folder / "site"
    source = wheels / "source"
    source.mkdir(parents=True)
    _extract(revision, source)
    _pip("wheel", "--no-deps", "--wheel-dir", str(wheels), str(source))
    [wheel] = wheels.glob("*.whl")
    _pip("install", "--no-deps", "--target", str(site), str(wheel))
    return site


def _extract(revision: str, folder: Path) -> None:
    """Write the files of a commit into a folder."""
    try:
        known = subprocess.run(
            ["git", "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}"], cwd=ROOT, capture_output=True
        )
        found = known.returncode == 0
    except FileNotFoundError:
        found = False
    if not found:
        pytest.skip(
            f"NOT TESTED: versions side by side. Commit {revision} is not in the history here (a shallow clone,"
            " or no repository): clone all of it, or `git fetch --unshallow`"
        )
    archive = subprocess.run(["git", "archive", revision], cwd=ROOT, capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
