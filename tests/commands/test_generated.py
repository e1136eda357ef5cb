"""Files of the package that are made of its code."""

from pathlib import Path

import pytest

from scheduler.commands.generated import generated

CURE = "run `nox -s generate`, and commit what it writes"


@pytest.mark.parametrize("path", generated(), ids=lambda path: path.name)
def test_a_generated_file_is_what_the_code_says(path: Path) -> None:
    """What is written there is what would be written now."""
    assert path.read_text() == generated()[path], f"{path.name} is out of date: {CURE}"
