"""Reads flags that precede the command, and explains mistakes on the command line."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from difflib import get_close_matches
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Final, get_args

from scheduler.commands.catalogue import CommandEntry
from scheduler.text import printable

if TYPE_CHECKING:
    from cyclopts import App

_SHOWN: Final = 80
"""Characters of a wrong word that a message repeats."""


def command_first(tokens: Sequence[str], commands: Collection[str]) -> tuple[list[str], str | None]:
    """Move the command in front of the flags that precede it.

    Args:
        tokens: the command line.
        commands: the names of the commands.

    Returns:
        The tokens, and the word in the command's place if it is not a command.
    """
    if not tokens or not tokens[0].startswith("-"):
        return list(tokens), tokens[0] if tokens and tokens[0] not in commands else None
    if len(tokens) == 1:
        return list(tokens), None
    # Without a command, these are flags of `serve`.
    other: str | None = None
    for at, token in bare(tokens):
        if token in commands:
            return [token, *tokens[:at], *tokens[at + 1 :]], None
        other = other or token
    return list(tokens), other


def bare(tokens: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Find the words among ``tokens`` that are neither a flag nor the value of one, with their places."""
    import attrs  # noqa: PLC0415 - few commands begin with a flag

    from scheduler.commands.groups import GROUPS  # noqa: PLC0415
    from scheduler.setting import flag_of  # noqa: PLC0415

    with_value = {
        flag_of(field.name)
        for group in GROUPS
        for field in attrs.fields(group)
        if (get_args(field.type) or (field.type,))[0] is not bool
    }
    value = False
    for at, word in enumerate(tokens):
        if word == "--":
            return
        if value:
            value = False
        elif word.startswith("-"):
            value = word in with_value
        else:
            yield at, word


def explain(
    app: "App", tokens: Sequence[str], other: str | None, error: Exception, commands: Collection[str]
) -> str:
    """Explain on one line why the command line is wrong.

    Args:
        app: the commands.
        tokens: the command line, the command first.
        other: a word after flags, in the place of a command, that is not a command.
        error: the error of cyclopts.
        commands: the names of the commands.
    """
    from cyclopts import CoercionError, MissingArgumentError  # noqa: PLC0415 - it is loaded by now

    command = tokens[0]
    call = f"scheduler {command}"
    arguments = app[command].assemble_argument_collection()
    known = {name for argument in arguments for name in argument.names if name.startswith("-")}
    for token in tokens[1:]:
        name = token.partition("=")[0]
        if name in {"-", "--"} or not name.startswith("-") or name in known:
            continue
        cure = suggestion(name, known)
        return f"`{call}` has no flag {printable(name, _SHOWN)}{cure or '.'} See {call} --help"
    if other is not None:
        # After an unknown flag it would be that flag's value.
        return unknown_command(other, commands)
    if isinstance(error, CoercionError) and error.token is not None and error.target_type is bool:
        # Its other words count as unused then.
        flag, value = error.token.keyword, printable(error.token.value, _SHOWN)
        return f"`{call}` takes {flag} alone, or with true or false: {value!r} is neither. See {call} --help"
    unused = getattr(error, "unused_tokens", None)
    if unused and unused[0] in known:
        return f"`{call}` needs a value for {unused[0]}. See {call} --help"
    if unused:
        takes = [argument.name for argument in arguments if argument.names and argument.name.isupper()]
        only = f"takes {' and '.join(takes)}" if takes else "takes flags only"
        return (
            f"`{call}` {only}, and {printable(str(unused[0]), _SHOWN)!r} is one too many. See {call} --help"
        )
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        return f"`{call}` needs {error.argument.name}. See {call} --help"
    return f"{' '.join(str(error).split())} See {call} --help"


def unknown_command(name: str, commands: Collection[str]) -> str:
    """Say that there is no such command, and list the commands."""
    cure = suggestion(name, commands)
    intro = f"{cure} The" if cure else ": the"
    return f"there is no command {printable(name, _SHOWN)!r}{intro} commands are {', '.join(commands)}"


def suggestion(name: str, known: Collection[str]) -> str:
    """Return ``: did you mean x?`` if a known word is similar."""
    words = {one.lstrip("-"): one for one in sorted(known)}
    found = get_close_matches(name.lstrip("-"), words, n=1, cutoff=0.7)
    return f": did you mean {words[found[0]]}?" if found else ""


def overview(commands: Iterable[CommandEntry], version: str) -> str:
    """List the commands, for a person who typed only the program's name.

    Args:
        commands: all of them, ordered by group.
        version: the program's version.
    """
    lines = [
        f"scheduler {version}: runs builds, dependency graphs of infrastructure.",
        "",
        "  scheduler serve              take builds from the broker at --nats-url",
        "  scheduler serve --embedded   the same, with a broker in this process",
        "",
        "At a terminal `scheduler` alone prints this; anywhere else it serves.",
    ]
    for group, members in groupby(commands, attrgetter("group")):
        lines += ["", group, *(f"  {command.name:12} {command.summary}" for command in members)]
    lines += ["", "scheduler COMMAND --help shows a command's flags, scheduler help the documents.", ""]
    return "\n".join(lines)
