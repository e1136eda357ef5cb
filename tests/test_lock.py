"""What is locked in `.ci/`: all that `pyproject.toml` asks for, by hash, from no registry in particular."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = {"requirements.lock": ["build"], "tests.lock": ["build", "test"]}
CURE = "run `nox -s lock`, and commit what it writes"


def entries(name: str) -> dict[str, str]:
    """What a lock has, by name: each entry on one line, with its hashes."""
    text = (ROOT / ".ci" / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found: dict[str, str] = {canonicalize_name(line.partition("==")[0]): line for line in lines}
    assert len(found) == len(lines)
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_what_is_locked_is_what_the_project_asks_for(name: str) -> None:
    """Every requirement is there, in a version that it allows."""
    locked = entries(name)
    wanted = list(PROJECT["project"]["dependencies"])
    wanted += [one for extra in PROJECT["project"]["optional-dependencies"].values() for one in extra]
    for group in LOCKS[name]:
        wanted += [one for one in PROJECT["dependency-groups"][group] if isinstance(one, str)]
    for requirement in map(Requirement, wanted):
        entry = locked.get(canonicalize_name(requirement.name), "")
        assert entry, f"{requirement.name} is not in {name}: {CURE}"
        version = entry.partition("==")[2].split()[0]
        assert requirement.specifier.contains(version), f"{name} has {version} of {requirement}: {CURE}"


@pytest.mark.parametrize("name", LOCKS)
def test_all_that_is_locked_has_a_hash_and_names_no_registry(name: str) -> None:
    """Whoever installs chooses from where; what comes has to be this."""
    for package, entry in entries(name).items():
        assert re.fullmatch(r"[a-z0-9-]+==[^ ]+ +(; [^#]+ )?( *--hash=sha256:[0-9a-f]{64})+ *", entry), (
            package
        )
    text = (ROOT / ".ci" / name).read_text()
    assert "://" not in text
    assert "index" not in text
    assert "find-links" not in text


def test_tests_run_on_what_is_installed() -> None:
    """The versions in both locks are the same."""
    package, tests = entries("requirements.lock"), entries("tests.lock")
    assert {name: tests.get(name) for name in package} == package


def test_what_builds_the_package_is_locked_as_well() -> None:
    """So nothing that is not locked has a hand in it: the group and the build system say the same."""
    assert PROJECT["dependency-groups"]["build"] == PROJECT["build-system"]["requires"]
