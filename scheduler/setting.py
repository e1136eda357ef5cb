"""Declares settings: each once, as an attribute of the class that holds it.

The declaration names what is allowed, the help, and the section. From it come the flag (`max_builds` is
``--max-builds``), the environment variable (``SCHEDULER_MAX_BUILDS``), the check of the value, and the row
in ``docs/settings.md``. The classes that hold settings are `scheduler.config.Settings`,
`scheduler.config.contexts.ContextOption`, `scheduler.bus.options.BusOptions`,
`scheduler.config.web.WebSettings`, `scheduler.definition.limits.Limits` and
`scheduler.local.simulator.Behaviour`.
"""

from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any, Final, Literal, NamedTuple, TypeVar, get_args, get_origin

from attrs import Attribute, field, fields

from scheduler.errors import InvalidSettings
from scheduler.text import DURATIONS, mask_url, printable, read_duration, write_duration

_T = TypeVar("_T")

_VARIABLES: Final = {"nats_url": ("NATS_URL", "NATS_URI"), "context": ("NATS_CONTEXT",)}
"""Variables that others gave their names; ``NATS_URI`` is the one that Ernest sets."""
_DECLARED: Final = "setting"
_SECRETS: Final = frozenset({"notify_secret", "password", "token", "web_token"})
_SHOWN: Final = 100
"""Characters of a wrong value that an error message repeats."""


class Section(StrEnum):
    """Headings under which settings are explained, in order."""

    BROKER = "Broker"
    EMBEDDED = "Embedded broker"
    STORE = "Store"
    REFERENCES = "References"
    BUILDS = "Builds"
    TIMES = "Times"
    LIMITS = "Limits"
    NOTIFICATIONS = "Notifications"
    MONITORING = "Metrics and health"
    PAGE = "Page"
    LOG = "Log"
    SIMULATED = "Simulated connectors"


class Range(NamedTuple):
    """Range of a number, both ends included. Whole numbers are given as ``int``."""

    low: float
    high: float
    duration: bool = False
    """Whether it is a number of seconds, which may be written with units."""

    def __str__(self) -> str:
        if self.duration:
            return f"a duration from {write_duration(self.low)} to {write_duration(self.high)}"
        kind = "a whole number" if self.whole else "a number"
        return f"{kind} from {plain(self.low)} to {plain(self.high)}"

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are allowed."""
        return isinstance(self.low, int)


class Setting(NamedTuple):
    """Declaration of a setting, beside its type and its default."""

    help: str
    """Help text, one sentence."""
    section: Section
    allowed: Range | None = None
    """Range, for a number."""
    read: Callable[[str], Any] | None = None
    """Reader of the flag's text, where that is no value yet."""
    written: str | tuple[str, ...] = ""
    """Default text of the flag, for a setting with ``read``."""
    otherwise: str = ""
    """Default in words, where there is no value to show."""
    name: str = ""
    """Name for the flag and the variable, where that is not the attribute's."""
    more: str = ""
    """Markdown for the table of the documentation only."""


def setting(
    default: _T,
    text: str,
    section: Section,
    allowed: Range | None = None,
    *,
    read: Callable[[str], Any] | None = None,
    written: str | tuple[str, ...] = "",
    otherwise: str = "",
    name: str = "",
    more: str = "",
    **options: Any,
) -> _T:
    """Declare an attribute of an attrs class as a setting.

    Args:
        default: as attrs takes it.
        text: the help, one sentence; the other arguments are those of `Setting`.
        section: the heading under which it is explained.
        allowed: the range of a number.
        read: reads the text of the flag.
        written: the default of that text.
        otherwise: the default in words.
        name: name, where that is not the attribute's.
        more: further Markdown for the documentation.
        options: those of `attrs.field`.
    """
    declared = Setting(text, section, allowed, read, written, otherwise, name, more)
    made: _T = field(default=default, metadata={_DECLARED: declared}, **options)
    return made


def settings_in(holder: type) -> Iterator[tuple["Attribute[Any]", Setting]]:
    """Yield the settings among the attributes of a class, in order."""
    for attribute in fields(holder):
        declared = attribute.metadata.get(_DECLARED)
        if declared is not None:
            yield attribute, declared


def check_ranges(holder: object) -> None:
    """Check the numbers among the settings of an object.

    Raises:
        InvalidSettings: one of them is out of its range.
    """
    for attribute, declared in settings_in(type(holder)):
        if declared.allowed is not None:
            _check_range(attribute.name, getattr(holder, attribute.name), declared.allowed)


def flag_of(name: str) -> str:
    """Return the flag of the setting ``name``."""
    return "--" + name.replace("_", "-")


def variables_of(name: str) -> tuple[str, ...]:
    """Return the environment variables of the setting ``name``; the first that is set counts."""
    return _VARIABLES.get(name, (f"SCHEDULER_{name.upper()}",))


def invalid(name: str, value: object, allowed: str) -> InvalidSettings:
    """Return the error for a wrong value of a setting: one line with its name, the value and its range.

    A value that is a secret, or None, is not shown.
    """
    shown = "the value" if name in _SECRETS or value is None else _brief(value)
    return wrong(name, f"{shown} {allowed}")


def wrong(name: str, problem: object) -> InvalidSettings:
    """Return the error for a setting whose problem is known in full."""
    return InvalidSettings(f"{spelled(name)}: {problem}")


def spelled(name: str) -> str:
    """Return the flag of the setting ``name`` with its variables, as messages name it."""
    return f"{flag_of(name)} ({', '.join(variables_of(name))})"


def _brief(value: object) -> str:
    if isinstance(value, str):
        return f"'{printable(mask_url(value), _SHOWN)}'"
    return str(value)[:_SHOWN]


def parse_number(name: str, text: str, allowed: Range) -> float:
    """Parse ``text`` as the number that ``name`` takes; an ``int`` where it takes whole numbers.

    Args:
        name: a setting, or another flag.
        text: the given text.
        allowed: its range.

    Raises:
        InvalidSettings: it is none, is not finite, or is out of range.
    """
    kind: Callable[[str], float] = read_duration if allowed.duration else int if allowed.whole else float
    try:
        value = kind(text)
    except ValueError:
        raise invalid(name, text, _is_not(allowed)) from None
    _check_range(name, value, allowed, text if allowed.duration else None)
    return value


def _check_range(name: str, value: float, allowed: Range, written: str | None = None) -> None:
    # Not a number is in no range: every comparison with it is false.
    whole = isinstance(value, int) and not isinstance(value, bool)
    if (allowed.whole and not whole) or not allowed.low <= value <= allowed.high:
        raise invalid(name, value if written is None else written, _is_not(allowed))


def _is_not(allowed: Range) -> str:
    return f"is not {allowed}{f', such as {DURATIONS}' if allowed.duration else ''}"


def plain(number: float) -> str:
    """Return a number with commas: ``10,000``."""
    return f"{int(number):,}" if number == int(number) else str(number)


def has_choices(type_: object) -> bool:
    """Return whether a type is a ``Literal`` or a ``StrEnum``: one of a few words."""
    return get_origin(type_) is Literal or (isinstance(type_, type) and issubclass(type_, StrEnum))


def words_of(choices: object) -> list[str]:
    """Return the words that ``choices``, a ``Literal`` or a ``StrEnum``, leave the choice of."""
    return [str(word) for word in get_args(choices) or choices]  # type: ignore[attr-defined]


def check_choice(name: str, value: str, choices: object) -> None:
    """Check that ``value`` is one of ``choices``, a ``Literal`` or a ``StrEnum``.

    Raises:
        InvalidSettings: it is none of them.
    """
    words = words_of(choices)
    if value not in words:
        raise invalid(name, value, f"is not one of: {', '.join(words)}")
