"""Builds as files."""

import sys
from importlib import resources
from pathlib import Path
from typing import Annotated, TypeAlias

import msgspec
from cyclopts import Parameter

from scheduler.commands.completers import build_files
from scheduler.commands.parameters import choice
from scheduler.commands.saying import complain
from scheduler.definition.model import BUILD_ACTIONS, DEFAULT_BUILD_ACTION
from scheduler.definition.strictjson import decode, split_object
from scheduler.errors import InvalidSettings, SchedulerError
from scheduler.text import printable

STANDARD_INPUT = "-"
# A lone dash would otherwise be taken for a flag.
BuildFile: TypeAlias = Annotated[
    str,
    Parameter(
        help="File with a build as JSON or YAML; - for standard input.",
        allow_leading_hyphen=True,
        completer=build_files,
    ),
]

BuildAction: TypeAlias = Annotated[
    str | None,
    choice(
        "action",
        BUILD_ACTIONS,
        "Action of the build [default: the file's own, else build.create].",
        show_default=False,
    ),
]


def note_action(name: str, data: bytes, action: str | None) -> None:
    """Warn if a file's own action is ignored because no build can have it.

    Args:
        name: the file's name.
        data: its contents.
        action: the action given on the command line.
    """
    if action is not None:
        return
    try:
        own = decode(split_object(data)["action"])
    except (SchedulerError, KeyError):
        return
    if isinstance(own, str) and own and own not in BUILD_ACTIONS:
        complain(
            f"{printable(name)}: no build has the action {printable(own, 80)!r}; it is taken as"
            f" {DEFAULT_BUILD_ACTION} (--action takes {', '.join(BUILD_ACTIONS)})"
        )


def read_file(name: str) -> bytes | None:
    """Read a file, or standard input for ``-``; if it cannot be read, print why and return None.

    Raises:
        InvalidSettings: the name is a mistyped flag.
    """
    if name.startswith("-") and name != STANDARD_INPUT:
        raise InvalidSettings(f"there is no flag {name!r}; write './{name}' for a file of this name")
    try:
        return sys.stdin.buffer.read() if name == STANDARD_INPUT else Path(name).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        complain(f"cannot read {name!r}: {reason}")
        return None


def compact(data: bytes) -> bytes:
    """Remove the white space between the values of a JSON document; numbers and texts stay as they are."""
    return msgspec.json.format(data, indent=-1)


def examples() -> list[str]:
    """List the names of the builds that ship with the package."""
    folder = resources.files("scheduler") / "examples"
    return sorted(
        entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json")
    )


def read_example(name: str) -> bytes:
    """Read a build that ships with the package, one of `examples`."""
    return (resources.files("scheduler") / "examples" / f"{name}.json").read_bytes()
