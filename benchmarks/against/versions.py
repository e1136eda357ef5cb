"""Finds the two versions: this one, and another one with an environment of its own.

The other one is unpacked and installed in a cache folder, once for each commit and Python, and stays there
for the next run. It gets what its own ``pyproject.toml`` asks for, in the newest versions that this allows.
"""

import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import platformdirs
from attrs import frozen

from benchmarks.processes import THIS, Installation

_INSTALLED = 900.0
"""Deadline of an installation, in seconds."""
_ANSWERED = 60.0
_LOOK = """
import importlib.metadata, json, scheduler
found = {one.metadata["Name"]: one.version for one in importlib.metadata.distributions()}
print(json.dumps([scheduler.__file__, found]))
"""
_ENVIRONMENT = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPATH": ""}


class NoVersionError(Exception):
    """Version that cannot be found, or cannot be installed."""


@frozen
class Version:
    """Version of the scheduler that can be run."""

    name: str
    """Short name of its commit."""
    commit: str
    installation: Installation
    packages: dict[str, str]
    """Versions of all packages of its environment."""


def this_version() -> Version:
    """Find the version that these benchmarks are part of; its name tells of changes that are in no commit.

    Raises:
        NoVersionError: it is no checkout.
    """
    changed = "+" if _git("status", "--porcelain", "--untracked-files=no") else ""
    return _version(_commit("HEAD"), THIS, changed)


def other_version(rev: str, python: Path | None = None) -> Version:
    """Find the version of a commit, and install it unless the interpreter of its environment is given.

    Raises:
        NoVersionError: there is no such commit, or it cannot be installed.
    """
    commit = _commit(rev)
    if python is None:
        return _version(commit, _installed(commit))
    # Not its real path, which is that of the interpreter that the environment was made with.
    python = python.absolute()
    package, _ = _look(Installation(str(python), Path("/")))
    root = package.parent
    if _git("-C", str(root), "rev-parse", "HEAD") != commit:
        raise NoVersionError(f"{python} runs {root}, which is not at {rev}")
    return _version(commit, Installation(str(python), root))


def _commit(rev: str) -> str:
    return _git("rev-parse", "--verify", "--end-of-options", f"{rev}^{{commit}}")


def _version(commit: str, installation: Installation, changed: str = "") -> Version:
    package, packages = _look(installation)
    if package.parent != installation.root:
        raise NoVersionError(f"{installation.python} runs {package}, not what is in {installation.root}")
    return Version(_git("rev-parse", "--short", commit) + changed, commit, installation, packages)


def _look(installation: Installation) -> tuple[Path, dict[str, str]]:
    """Return the folder of the package that an installation runs, and the versions of all its packages."""
    said = _run([installation.python, "-c", _LOOK], folder=installation.root, deadline=_ANSWERED)
    file, packages = json.loads(said)
    return Path(file).parent, packages


def _installed(commit: str) -> Installation:
    name = f"{commit}-{platform.python_implementation()}-{platform.python_version()}".lower()
    folder = platformdirs.user_cache_path("scheduler-benchmarks") / name
    tree, environment, ready = folder / "tree", folder / "environment", folder / "ready"
    installation = Installation(str(environment / "bin" / "python"), tree)
    if not ready.exists():
        sys.stderr.write(f"installing: {commit} in {folder}\n")
        shutil.rmtree(folder, ignore_errors=True)
        tree.mkdir(parents=True)
        with tarfile.open(fileobj=io.BytesIO(_archive(commit))) as archive:
            archive.extractall(tree, filter="data")
        _run([sys.executable, "-m", "venv", str(environment)], folder=folder, deadline=_INSTALLED)
        # A pip of some years ago knows neither groups nor all that a `pyproject.toml` may say.
        for what in (["--upgrade", "pip"], ["--editable", str(tree)]):
            command = installation.command("pip", "install", "--quiet", *what)
            _run(command, folder=tree, deadline=_INSTALLED)
        ready.touch()
    return installation


def _archive(commit: str) -> bytes:
    command = ["git", "archive", "--format=tar", commit]
    done = subprocess.run(command, cwd=THIS.root, capture_output=True, check=False, timeout=_ANSWERED)
    if done.returncode:
        raise NoVersionError(done.stderr.decode().strip())
    return done.stdout


def _git(*arguments: str) -> str:
    return _run(["git", *arguments], folder=THIS.root, deadline=_ANSWERED).strip()


def _run(command: Sequence[str], *, folder: Path, deadline: float) -> str:
    """Run a command and return what it prints.

    Raises:
        NoVersionError: it fails, or takes too long.
    """
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **_ENVIRONMENT},
            capture_output=True,
            check=True,
            text=True,
            timeout=deadline,
        )
    except subprocess.CalledProcessError as error:
        raise NoVersionError(f"{' '.join(command)}: {error.stderr.strip()}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoVersionError(f"{' '.join(command)}: {error}") from error
    return done.stdout
