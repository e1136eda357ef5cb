"""Reads and checks a build from a file, for the commands that take one."""

import sys
from collections.abc import Sequence

from scheduler.commands.files import note_action, read_file
from scheduler.commands.saying import complain
from scheduler.config import Settings
from scheduler.definition.validation import Prepared, read_build
from scheduler.errors import InvalidBuild
from scheduler.text import count, printable


def read_checked(file: str, settings: Settings, action: str | None = None) -> tuple[bytes, Prepared] | None:
    """Read a build from a file; if it is not valid, print every problem and return None.

    Args:
        file: its name; ``-`` is standard input.
        settings: bounds, and the reading of references.
        action: its action; goes before the one in the file.
    """
    data = read_file(file)
    if data is None:
        return None
    note_action(file, data, action)
    try:
        prepared = read_build(
            data,
            limits=settings.limits,
            templates=settings.templates,
            unresolved=settings.unresolved,
            action=action,
        )
    except InvalidBuild as error:
        complain_of_build(file, error)
        return None
    return data, prepared


def complain_of_build(name: str, error: InvalidBuild) -> None:
    """Print every problem of a build, each with its place."""
    complain_of_problems(name, [str(problem) for problem in error.problems] or [str(error)])


def complain_of_problems(name: str, problems: Sequence[str]) -> None:
    """Print problems that are text already."""
    complain(f"{printable(name)} has {count(len(problems), 'problem')}:")
    sys.stderr.write("".join(f"  {printable(problem)}\n" for problem in problems))
    sys.stderr.flush()
