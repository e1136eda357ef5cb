"""Builds as files."""

import sys
from importlib import resources
from pathlib import Path
from typing import Annotated, TypeAlias

import msgspec
from cyclopts import Parameter

from scheduler.errors import InvalidSettings

STANDARD_INPUT = "-"
# A lone dash would otherwise be taken for a flag.
BuildFile: TypeAlias = Annotated[
    str, Parameter(help="A build as JSON; - is standard input.", allow_leading_hyphen=True)
]


def read_file(name: str) -> bytes | None:
    """What the file holds, or standard input for ``-``; None, and a complaint, if it can't be read.

    Raises:
        InvalidSettings: it is a mistyped flag.
    """
    if name.startswith("-") and name != STANDARD_INPUT:
        raise InvalidSettings(f"there is no flag {name!r}; a file of this name would be './{name}'")
    try:
        return sys.stdin.buffer.read() if name == STANDARD_INPUT else Path(name).read_bytes()
    except (OSError, ValueError) as error:
        from scheduler.commands.session import complain  # noqa: PLC0415 - it comes with all of Trio

        reason = error.strerror if isinstance(error, OSError) else error
        complain(f"cannot read {name!r}: {reason}")
        return None


def compact(data: bytes) -> bytes:
    """A JSON document without white space between its values; numbers and texts stay as they are."""
    return msgspec.json.format(data, indent=-1)


def examples() -> list[str]:
    """The names of the builds that ship with the package."""
    folder = resources.files("scheduler") / "examples"
    return sorted(
        entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json")
    )


def read_example(name: str) -> bytes:
    """A build that ships with the package, one of `examples`."""
    return (resources.files("scheduler") / "examples" / f"{name}.json").read_bytes()
