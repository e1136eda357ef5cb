"""The distribution: its name, and what is said of it."""

import re
import tomllib
from pathlib import Path
from typing import Any

from scheduler import __version__

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAME = PROJECT["name"]


def test_the_distribution_has_a_name_of_its_own() -> None:
    """``scheduler`` is another project's on the package index; the command has that name all the same."""
    assert NAME != "scheduler"
    assert PROJECT["scripts"] == {"scheduler": "scheduler.cli:main"}
    assert PROJECT["entry-points"]["pipx.run"] == {NAME: "scheduler.cli:main"}


def test_the_readme_names_the_wheel_of_this_version() -> None:
    """Its commands run the file that ``nox -s package`` makes."""
    wheels = re.findall(r"dist/(\S+\.whl)", (ROOT / "README.md").read_text())
    assert set(wheels) == {f"{NAME.replace('-', '_')}-{__version__}-py3-none-any.whl"}
    assert len(wheels) == 2
