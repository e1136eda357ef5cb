"""Parameters for single flags: the reading of the text, the variable, and the heading in the help."""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Protocol, TypeAlias

from cyclopts import Group, Parameter

from scheduler.commands.completers import (
    Candidates,
    Completer,
    all_builds,
    components,
    contexts,
    running_builds,
    waiting_gates,
)
from scheduler.config import RANGES
from scheduler.setting import (
    Range,
    Section,
    Setting,
    check_choice,
    flag_of,
    has_choices,
    invalid,
    parse_number,
    variables_of,
    words_of,
)
from scheduler.text import write_duration

OPTIONS = Group("Options", sort_key=1)
CONTENT = Group("Id, values and part", sort_key=2)
STORE = Group("Store", sort_key=3)
BUILDS = Group("Builds", sort_key=4)
TIMES = Group("Times: seconds, or as 250ms, 10m, 1h30m, 7d", sort_key=5)
LIMITS = Group("Limits", sort_key=6)
NOTIFICATIONS = Group("Notifications", sort_key=7)
MONITORING = Group("Metrics and health", sort_key=8)
PAGE = Group("Page", sort_key=9)
SIMULATED = Group("Simulated connectors", sort_key=10)
BROKER = Group("Broker", sort_key=11)
LOG = Group("Log", sort_key=12)
_PANELS: Final = {
    Section.BROKER: BROKER,
    Section.EMBEDDED: OPTIONS,
    Section.STORE: STORE,
    Section.REFERENCES: BUILDS,
    Section.BUILDS: BUILDS,
    Section.TIMES: TIMES,
    Section.LIMITS: LIMITS,
    Section.NOTIFICATIONS: NOTIFICATIONS,
    Section.MONITORING: MONITORING,
    Section.PAGE: PAGE,
    Section.LOG: LOG,
    Section.SIMULATED: SIMULATED,
}
"""Headings of the help, by those of the documentation."""

_COMPLETERS: Final = {"context": contexts}
_TRUE = {"1", "true", "yes", "on", "y", "t"}
_FALSE = {"0", "false", "no", "off", "n", "f", ""}


BuildId: TypeAlias = Annotated[str, Parameter(help="Id of the build.", completer=all_builds)]
RunningBuildId: TypeAlias = Annotated[str, Parameter(help="Id of the build.", completer=running_builds)]
ComponentId: TypeAlias = Annotated[
    str, Parameter(help="Id of a component of the build.", completer=components)
]
GateId: TypeAlias = Annotated[
    str, Parameter(help="Id of a component that waits for a person.", completer=waiting_gates)
]


class Token(Protocol):
    """Token that cyclopts hands to a converter."""

    value: str


def parameter_of(name: str, type_: Any, default: Any, declared: Setting, otherwise: str) -> Parameter:
    """Return the parameter for the flag of a setting.

    Args:
        name: name of the setting.
        type_: type of the setting.
        default: default of the flag.
        declared: declaration of the setting.
        otherwise: default in words, where the flag has none to show.
    """
    panel = _PANELS[declared.section]
    help_ = declared.help
    if otherwise:
        help_ = f"{help_.removesuffix('.')} [default: {otherwise}]."
    if declared.allowed is not None:
        return number(name, help_, panel, declared.allowed)
    if type_ is bool:
        return switch(name, help_, panel)
    if has_choices(type_):
        return choice(name, type_, help_, panel, show_default=default is not None)
    completer = _COMPLETERS.get(name)
    return _parameter(name, help_, panel, None, show_default=bool(default), completer=completer)


def number(name: str, text: str, group: Group | None = None, allowed: Range | None = None) -> Parameter:
    """Return the parameter for the number ``name``; ``allowed`` goes before `scheduler.config.RANGES`."""
    within = allowed or RANGES[name]

    def convert(_hint: Any, tokens: Sequence[Token]) -> float:
        return parse_number(name, tokens[0].value, within)

    return _parameter(name, text, group, convert, show_default=write_duration if within.duration else True)


def choice(
    name: str, choices: Any, text: str, group: Group | None = None, *, show_default: bool = True
) -> Parameter:
    """Return the parameter for a flag that takes one of ``choices``, a ``Literal`` or a ``StrEnum``."""

    def convert(_hint: Any, tokens: Sequence[Token]) -> Any:
        check_choice(name, tokens[0].value, choices)
        return choices(tokens[0].value) if isinstance(choices, type) else tokens[0].value

    def complete(_context: Any) -> Candidates:
        return [(word, "") for word in words_of(choices)]

    return _parameter(name, text, group, convert, show_default=show_default, completer=complete)


def switch(name: str, text: str, group: Group | None = None) -> Parameter:
    """Return the parameter for a flag that is given or not; its variable says ``true`` or ``false``."""

    def convert(_hint: Any, tokens: Sequence[Token]) -> bool:
        value = tokens[0].value.strip().lower()
        if value not in _TRUE | _FALSE:
            raise invalid(name, tokens[0].value, "is neither true nor false")
        return value in _TRUE

    return _parameter(name, text, group, convert, show_default=False)


def text(name: str, explanation: str, group: Group | None = None) -> Parameter:
    """Return the parameter for a flag that takes any text."""
    return _parameter(name, explanation, group, None, show_default=False)


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
