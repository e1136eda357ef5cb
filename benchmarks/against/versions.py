"""Finds the two versions: this one, and another one with an environment of its own.

The other one is unpacked and installed in a cache folder, once for each commit and Python, and stays there
for the next run. It gets what its own ``pyproject.toml`` asks for, in the newest versions that this allows.
"""

import json
from pathlib import Path

from attrs import frozen

from benchmarks.environments import InstallationError, cached, interpreter, make_environment, run
from benchmarks.processes import THIS, Installation

_LOOK = """
import importlib.metadata, json, scheduler
found = {one.metadata["Name"]: one.version for one in importlib.metadata.distributions()}
print(json.dumps([scheduler.__file__, found]))
"""


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
    """Find the version that these benchmarks are part of; a ``+`` tells of changes that are in no commit.

    Raises:
        InstallationError: it is no checkout.
    """
    changed = "+" if _git("status", "--porcelain", "--untracked-files=no") else ""
    return _version(_commit("HEAD"), THIS, changed)


def other_version(rev: str, python: Path | None = None) -> Version:
    """Find the version of a commit, and install it unless the interpreter of its environment is given.

    Raises:
        InstallationError: there is no such commit, or it cannot be installed.
    """
    commit = _commit(rev)
    if python is None:
        folder = cached(commit, lambda folder: _install(commit, folder))
        return _version(commit, Installation(interpreter(folder), folder / "tree"))
    # Not its real path, which is that of the interpreter that the environment was made with.
    python = python.absolute()
    package, _ = _look(Installation(str(python), Path("/")))
    root = package.parent
    if _git("-C", str(root), "rev-parse", "HEAD") != commit:
        raise InstallationError(f"{python} runs {root}, which is not at {rev}")
    return _version(commit, Installation(str(python), root))


def _commit(rev: str) -> str:
    return _git("rev-parse", "--verify", "--end-of-options", f"{rev}^{{commit}}")


def _version(commit: str, installation: Installation, changed: str = "") -> Version:
    package, packages = _look(installation)
    if package.parent != installation.root:
        raise InstallationError(f"{installation.python} runs {package}, not what is in {installation.root}")
    return Version(_git("rev-parse", "--short", commit) + changed, commit, installation, packages)


def _look(installation: Installation) -> tuple[Path, dict[str, str]]:
    """Return the folder of the package that an installation runs, and the versions of all its packages."""
    file, packages = json.loads(run([installation.python, "-c", _LOOK], folder=installation.root))
    return Path(file).parent, packages


def _install(commit: str, folder: Path) -> None:
    tree, archive = folder / "tree", folder / "tree.tar"
    tree.mkdir()
    _git("archive", "--format=tar", f"--output={archive}", commit)
    run(["tar", "-xf", str(archive)], folder=tree)
    make_environment(folder, ["--editable", str(tree)])


def _git(*arguments: str) -> str:
    return run(["git", *arguments], folder=THIS.root).strip()
