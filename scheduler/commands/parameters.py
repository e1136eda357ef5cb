"""A single flag: how its text is read, what its variable is called, and under which heading help shows it."""

from collections.abc import Sequence
from typing import Annotated, Any, Protocol, TypeAlias

from cyclopts import Group, Parameter

from scheduler.commands.completers import Candidates, Completer, all_builds, components, running_builds
from scheduler.config import (
    RANGES,
    Range,
    check_choice,
    flag_of,
    invalid,
    parse_number,
    variables_of,
    words_of,
)
from scheduler.text import write_duration

OPTIONS = Group("Options", sort_key=1)
STORE = Group("Store", sort_key=2)
BUILDS = Group("Builds", sort_key=3)
TIMES = Group("Times: seconds, or as 250ms, 10m, 1h30m, 7d", sort_key=4)
LIMITS = Group("Limits", sort_key=5)
SIMULATED = Group("Simulated connectors", sort_key=6)
BROKER = Group("Broker", sort_key=7)
LOG = Group("Log", sort_key=8)

_TRUE = {"1", "true", "yes", "on", "y", "t"}
_FALSE = {"0", "false", "no", "off", "n", "f", ""}


BuildId: TypeAlias = Annotated[str, Parameter(help="Id of the build.", completer=all_builds)]
RunningBuildId: TypeAlias = Annotated[str, Parameter(help="Id of the build.", completer=running_builds)]
ComponentId: TypeAlias = Annotated[
    str, Parameter(help="Id of a component of the build.", completer=components)
]


class Token(Protocol):
    """What cyclopts hands to a converter."""

    value: str


def number(name: str, text: str, group: Group | None = None, allowed: Range | None = None) -> Parameter:
    """A flag for the number ``name``; its range is ``allowed``, or what `scheduler.config.RANGES` says."""

    def convert(_hint: Any, tokens: Sequence[Token]) -> float:
        return parse_number(name, tokens[0].value, allowed)

    duration = (allowed or RANGES[name]).duration
    return _parameter(name, text, group, convert, show_default=write_duration if duration else True)


def choice(
    name: str, choices: Any, text: str, group: Group | None = None, *, show_default: bool = True
) -> Parameter:
    """A flag that takes one of ``choices``, a ``Literal`` or a ``StrEnum``."""

    def convert(_hint: Any, tokens: Sequence[Token]) -> Any:
        check_choice(name, tokens[0].value, choices)
        return choices(tokens[0].value) if isinstance(choices, type) else tokens[0].value

    def complete(_context: Any) -> Candidates:
        return [(word, "") for word in words_of(choices)]

    return _parameter(name, text, group, convert, show_default=show_default, completer=complete)


def switch(name: str, text: str, group: Group | None = None) -> Parameter:
    """A flag that is there or not; its variable says ``true`` or ``false``."""

    def convert(_hint: Any, tokens: Sequence[Token]) -> bool:
        value = tokens[0].value.strip().lower()
        if value not in _TRUE | _FALSE:
            raise invalid(name, tokens[0].value, "is neither true nor false")
        return value in _TRUE

    return _parameter(name, text, group, convert, show_default=False)


def text(name: str, explanation: str, group: Group | None = None) -> Parameter:
    """A flag that takes any text."""
    return _parameter(name, explanation, group, None, show_default=name in {"nats_url", "inbox_prefix"})


def _parameter(
    name: str,
    explanation: str,
    group: Group | None,
    convert: Any,
    *,
    show_default: Any = True,
    completer: Completer | None = None,
) -> Parameter:
    return Parameter(
        name=flag_of(name),
        env_var=variables_of(name),
        help=explanation,
        group=group or OPTIONS,
        converter=convert,
        negative="",
        show_default=show_default,
        completer=completer,
    )
