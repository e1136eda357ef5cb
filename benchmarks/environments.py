"""Environments with packages of their own, kept in a cache folder from one run to the next."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import platformdirs

_INSTALLED = 900.0
"""Deadline of an installation, in seconds."""
_ANSWERED = 60.0


class InstallationError(Exception):
    """Something that cannot be installed, or does not work."""


def cached(name: str, fill: Callable[[Path], None]) -> Path:
    """Return the cache folder of this name and Python; if it is not complete, it is filled anew.

    Raises:
        InstallationError: it cannot be filled.
    """
    python = f"{platform.python_implementation()}-{platform.python_version()}".lower()
    folder = platformdirs.user_cache_path("scheduler-benchmarks") / f"{name}-{python}"
    ready = folder / "ready"
    if not ready.exists():
        sys.stderr.write(f"installing: {name} in {folder}\n")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        fill(folder)
        ready.touch()
    return folder


def interpreter(folder: Path) -> str:
    """Return the interpreter of the environment in a folder of `cached`."""
    return str(folder / "environment" / "bin" / "python")


def make_environment(folder: Path, packages: Sequence[str]) -> None:
    """Make an environment in a folder, and install what pip's arguments say.

    Raises:
        InstallationError: something cannot be installed.
    """
    run([sys.executable, "-m", "venv", str(folder / "environment")], folder=folder, deadline=_INSTALLED)
    # A pip of some years ago does not know all that a `pyproject.toml` may say.
    for what in (["--upgrade", "pip"], packages):
        command = [interpreter(folder), "-m", "pip", "install", "--quiet", *what]
        run(command, folder=folder, deadline=_INSTALLED)


def run(command: Sequence[str], *, folder: Path, deadline: float = _ANSWERED) -> str:
    """Run a command in a folder and return what it prints.

    Raises:
        InstallationError: it fails, or takes longer than ``deadline`` seconds.
    """
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            # Its modules are compiled once, and none of another environment is in its way.
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPATH": ""},
            capture_output=True,
            check=True,
            text=True,
            timeout=deadline,
        )
    except subprocess.CalledProcessError as error:
        raise InstallationError(f"{' '.join(command)}: {error.stderr.strip()}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallationError(f"{' '.join(command)}: {error}") from error
    return done.stdout
