"""Settings as flags and environment variables, in groups that commands combine as they need.

Each class is flattened into its command's flags, which are made of the declarations in `scheduler.setting`.
A value is checked when it is read or where it is used (`Settings`, `BusOptions`); an error comes out as
`InvalidSettings`, one line for a person.

This module has the groups of nearly every command. Those of the service are in `service_flags`, those of
simulated connectors in `simulator_flags`: a command without them does not load them.
"""

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, NamedTuple, Optional, TypeVar

import attrs
from cyclopts import Parameter

from scheduler.bus.options import BusOptions
from scheduler.commands.parameters import parameter_of
from scheduler.config import Settings
from scheduler.definition.limits import Limits
from scheduler.errors import InvalidSettings
from scheduler.setting import Section, Setting, flag_of, settings_in, variables_of

_FLAG: Final = "flag"
_NAMES = re.compile(r"\b(?:user(?! info)|password|token|credentials|nkey|tls_key|tls_certificate)\b")
_LEADING_NAMES = re.compile(
    r"^(?:credentials|nkey|inbox_prefix|tls_[a-z]+)(?=[:,])|(?<=^tls_certificate, )tls_key(?=:)"
)


class Flags:
    """Group of flags; its attributes are their names."""

    if TYPE_CHECKING:
        __attrs_attrs__: ClassVar[Any]

        def __init__(self, **values: Any) -> None: ...

        def __getattr__(self, name: str) -> Any: ...


_F = TypeVar("_F", bound=Flags)


class Origin(NamedTuple):
    """Setting behind a flag."""

    holder: type
    """Class that holds the setting."""
    attribute: str
    declared: Setting


def flags(*parts: tuple[type, Section], **defaults: Any) -> Callable[[type[_F]], type[_F]]:
    """Fill a class with flags.

    Args:
        parts: settings that there is a flag for: a class that holds settings, and a section of them.
        defaults: values in place of the defaults of the settings.
    """

    def fill(group: type[_F]) -> type[_F]:
        fields: dict[str, Any] = {}
        for holder, section in parts:
            for attribute, declared in settings_in(holder):
                if declared.section is section:
                    name = declared.name or attribute.name
                    hint, default = _typed(attribute, declared)
                    parameter: Any = Annotated[hint, parameter_of(name, attribute.type, default, declared)]
                    fields[name] = attrs.field(
                        default=defaults.get(name, default),
                        type=parameter,
                        metadata={_FLAG: Origin(holder, attribute.name, declared)},
                    )
        made: type[_F] = Parameter(name="*")(attrs.frozen(group, these=fields, eq=False, repr=False))
        return made

    return fill


def _typed(attribute: "attrs.Attribute[Any]", declared: Setting) -> tuple[Any, Any]:
    """Return the type of a flag, and its default."""
    if declared.read is not None:
        return (str if isinstance(declared.written, str) else tuple[str, ...]), declared.written
    if isinstance(attribute.default, attrs.Factory):  # type: ignore[arg-type]
        # None is "not given": what it stands for is made when it is needed.
        return Optional[attribute.type], None  # noqa: UP045 - a value
    return attribute.type, attribute.default


def given(group: Flags) -> Iterator[tuple[Origin, Any]]:
    """Yield the values of the flags of a group that are given, with their settings."""
    for flag in attrs.fields(type(group)):
        value = getattr(group, flag.name)
        if value is not None:
            yield flag.metadata[_FLAG], value


def read(value: Any, declared: Setting) -> Any:
    """Return the value of a setting from that of its flag.

    Raises:
        InvalidSettings: it cannot be read.
    """
    return value if declared.read is None else declared.read(value)


@flags((BusOptions, Section.BROKER))
class BrokerFlags(Flags):
    """Flags for the broker: its address, and the credentials."""


@flags((Settings, Section.LOG), log_level="error")
class QuietLogFlags(Flags):
    """Flags for the log of a command whose output is something else."""


BROKER_DEFAULTS = BrokerFlags()
QUIET_LOG_DEFAULTS = QuietLogFlags()
"""Flags of a command where none is given."""


def settings_of(*groups: Flags) -> Settings:
    """Return the settings that these flags describe; settings without a flag keep their defaults.

    Raises:
        InvalidSettings: a value that cannot be used.
    """
    values: dict[type, dict[str, Any]] = {Settings: {}, Limits: {}}
    broker = []
    for group in groups:
        for origin, value in given(group):
            if origin.holder is BusOptions:
                broker.append((origin, value))
            else:
                values[origin.holder][origin.attribute] = read(value, origin.declared)
    service = values[Settings]
    # With an embedded broker the settings for another one do not matter.
    if broker and not service.get("embedded"):
        login = {origin.attribute: read(value, origin.declared) for origin, value in broker}
        service["bus"] = _bus_options(login)
    return Settings(limits=Limits(**values[Limits]), **service)


def _bus_options(values: dict[str, Any]) -> BusOptions:
    try:
        return BusOptions(**values)
    except InvalidSettings as error:
        # The error names attributes, but people know the flags and variables.
        names = _NAMES if "given" in str(error) else _LEADING_NAMES
        raise InvalidSettings(names.sub(_spelled_out, str(error))) from None


def _spelled_out(name: re.Match[str]) -> str:
    return f"{flag_of(name[0])} ({variables_of(name[0])[0]})"
