"""Settings as flags and environment variables, in groups that commands combine as they need.

Each class is flattened into its command's flags, which are made of the declarations in `scheduler.setting`.
A value is checked when it is read or where it is used (`Settings`, `BusOptions`); an error comes out as
`InvalidSettings`, one line for a person.

This module has the groups of nearly every command. Those of the service are in `service_flags`, those of
simulated connectors in `simulator_flags`: a command without them does not load them.
"""

import re
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, NamedTuple, Optional, TypeVar

import attrs
from cyclopts import Parameter

from scheduler.bus.options import BusOptions
from scheduler.commands.parameters import parameter_of
from scheduler.config import Settings
from scheduler.config.contexts import Context, ContextOption, read_context
from scheduler.config.web import WebSettings
from scheduler.definition.limits import Limits
from scheduler.errors import InvalidSettings
from scheduler.setting import Section, Setting, settings_in, spelled

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


def flags(
    *parts: tuple[type, Section], only: Collection[str] = (), **defaults: Any
) -> Callable[[type[_F]], type[_F]]:
    """Fill a class with flags.

    Args:
        parts: settings that there is a flag for: a class that holds settings, and a section of them.
        only: names of those that there is a flag for; all of them where it is empty.
        defaults: values in place of the defaults of the settings.
    """

    def fill(group: type[_F]) -> type[_F]:
        fields: dict[str, Any] = {}
        for holder, section in parts:
            for attribute, declared in settings_in(holder):
                name = declared.name or attribute.name
                if declared.section is section and (not only or name in only):
                    hint, default = _typed(attribute, declared)
                    otherwise = declared.otherwise
                    if holder is BusOptions:
                        # What is not given may come from a context.
                        otherwise, default = default or "", None
                    type_: Any = Annotated[
                        hint, parameter_of(name, attribute.type, default, declared, otherwise)
                    ]
                    fields[name] = attrs.field(
                        default=defaults.get(name, default),
                        type=type_,
                        metadata={_FLAG: Origin(holder, attribute.name, declared)},
                    )
        made: type[_F] = Parameter(name="*")(attrs.frozen(group, these=fields, eq=False, repr=False))
        return made

    return fill


def _typed(attribute: "attrs.Attribute[Any]", declared: Setting) -> tuple[Any, Any]:
    """Return the type of a flag, and its default."""
    if isinstance(attribute.default, attrs.Factory):  # type: ignore[arg-type]
        # None is "not given": what it stands for is made when it is needed.
        return Optional[attribute.type if declared.read is None else str], None  # noqa: UP045 - a value
    if declared.read is not None:
        return (str if isinstance(declared.written, str) else tuple[str, ...]), declared.written
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


@flags((BusOptions, Section.BROKER), (ContextOption, Section.BROKER))
class BrokerFlags(Flags):
    """Flags for the broker: its address, the credentials, and a context for those that are not given."""


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
    values: dict[type, dict[str, Any]] = {Settings: {}, Limits: {}, ContextOption: {}, WebSettings: {}}
    broker = []
    for group in groups:
        for origin, value in given(group):
            if origin.holder is BusOptions:
                if value != getattr(BROKER_DEFAULTS, origin.declared.name or origin.attribute):
                    broker.append((origin, value))
            else:
                values[origin.holder][origin.attribute] = read(value, origin.declared)
    service, context = values[Settings], values[ContextOption].get("context")
    # With an embedded broker the settings for another one do not matter.
    if (broker or context) and not service.get("embedded"):
        login = {origin.attribute: read(value, origin.declared) for origin, value in broker}
        service["bus"] = _bus_options(login, read_context(context) if context else None)
    page = WebSettings(**values[WebSettings])
    return Settings(limits=Limits(**values[Limits]), page=page, **service)


def _bus_options(given: dict[str, Any], context: Context | None) -> BusOptions:
    def spelled_out(name: re.Match[str]) -> str:
        from_context = context is not None and name[0] in context.values and name[0] not in given
        return context.place(name[0]) if context is not None and from_context else spelled(name[0])

    try:
        return BusOptions(**(given if context is None else context.under(given)))
    except InvalidSettings as error:
        # The error names attributes, but people know the flags and variables, and a context's members.
        names = _NAMES if "given" in str(error) else _LEADING_NAMES
        raise InvalidSettings(names.sub(spelled_out, str(error))) from None
