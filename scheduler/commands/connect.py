"""``scheduler connect MODULE:ATTRIBUTE``: runs connectors that are made with the kit."""

import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Final

import attrs
from cyclopts import Parameter

from scheduler.bus.options import BusOptions
from scheduler.commands.asking import duration, option
from scheduler.commands.flags import BROKER_DEFAULTS, BrokerFlags, settings_of
from scheduler.commands.reaching import reach
from scheduler.commands.saying import complain
from scheduler.commands.service_flags import LOG_DEFAULTS, LogFlags
from scheduler.definition.nearly import nearly
from scheduler.errors import InvalidSettings
from scheduler.text import printable

if TYPE_CHECKING:
    from scheduler.connectors import Connectors, Store

_LONGEST: Final = 86_400.0
"""Seconds of the longest drain."""
_INBOX: Final = "_INBOX.connector"
"""Prefix of inboxes that the shipped permissions give to connectors."""
_STORES: Final = "sqlite:PATH, kv:BUCKET or memory"


def connect(
    connectors: Annotated[
        str, Parameter(help="Module and attribute of the connectors, as in my.module:connectors.")
    ],
    /,
    *,
    store: Annotated[
        str, option(f"Record of what was done: {_STORES} [default: that of the connectors].")
    ] = "",
    drain: Annotated[str, option("Time for what is begun to end at a stop [default: 30s].")] = "30s",
    broker: BrokerFlags = BROKER_DEFAULTS,
    log: LogFlags = LOG_DEFAULTS,
) -> int:
    """Run connectors that are made with the kit."""
    seconds = duration("--drain", drain, 0.0, _LONGEST)
    module, attribute = _split(connectors)
    settings = reach(settings_of(broker, log), aloud=True)

    # A wrong flag is told without loading these.
    from scheduler.commands.session import run_async  # noqa: PLC0415
    from scheduler.connectors.discovery import discovery  # noqa: PLC0415
    from scheduler.log import configure_logging  # noqa: PLC0415

    record = _store_of(store)
    # Modules may log while they are loaded.
    configure_logging(settings.log_level, settings.log_format)
    loaded = load(module, attribute)
    if loaded is None:
        return 1
    if record is not None:
        loaded.store = record
    options = attrs.evolve(settings.bus, name=f"scheduler connect {loaded.provider}")
    if options.inbox_prefix == attrs.fields(BusOptions).inbox_prefix.default:
        options = attrs.evolve(options, inbox_prefix=_INBOX)
    beside = [discovery(loaded.queue)]

    async def main() -> int:
        await loaded.run(options=options, drain=seconds, beside=beside)
        return 0

    return run_async(main, ours=False)


def load(name: str, attribute: str) -> "Connectors | None":
    """Import connectors, from the working directory or wherever Python finds the module.

    Returns:
        The connectors; None where the module raised an error, which was printed.

    Raises:
        InvalidSettings: there is no such module, or it has no such connectors.
    """
    from scheduler.connectors import Connectors  # noqa: PLC0415 - needed only here

    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module = _import(name)
    if module is None:
        return None
    there = [key for key, value in vars(module).items() if isinstance(value, Connectors)]
    if not hasattr(module, attribute):
        raise InvalidSettings(f"{name} has no {attribute!r}{_hint(name, attribute, there)}")
    found = getattr(module, attribute)
    if not isinstance(found, Connectors):
        what = type(found).__name__
        raise InvalidSettings(
            f"{name}:{attribute} is of type {what}, and no Connectors{_hint(name, attribute, there)}"
        )
    if not found.handlers:
        raise InvalidSettings(
            f"{name}:{attribute} has no handler: decorate a function, as in @{attribute}.create('vpc')"
        )
    return found


def _split(text: str) -> tuple[str, str]:
    """Divide ``my.module:connectors``."""
    module, colon, attribute = text.partition(":")
    shown = printable(text, 80)
    if module.endswith(".py") or "/" in module:
        raise InvalidSettings(f"{shown!r} is a file; name the module, as in my.module:connectors")
    if colon and all(part.isidentifier() for part in (*module.split("."), attribute)):
        return module, attribute
    raise InvalidSettings(f"{shown!r} is no module with an attribute, such as my.module:connectors")


def _import(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except Exception as error:  # noqa: BLE001 - a module may raise anything
        missing = error.name or "" if isinstance(error, ModuleNotFoundError) else ""
        if missing and f"{name}.".startswith(f"{missing}."):
            raise InvalidSettings(
                f"there is no module {missing!r}, neither in {str(Path.cwd())!r} nor among those installed"
            ) from None
        # Its traceback begins where the module does: what is before that is ours.
        trace = error.__traceback__
        while trace is not None and _is_ours(trace.tb_frame.f_code.co_filename):
            trace = trace.tb_next
        traceback.print_exception(type(error), error.with_traceback(trace), trace, chain=True)
        complain(f"the module {name} cannot be loaded: {printable(f'{type(error).__name__}: {error}', 500)}")
        return None


def _is_ours(file: str) -> bool:
    return file in {__file__, importlib.__file__} or file.startswith("<frozen importlib")


def _hint(name: str, attribute: str, there: list[str]) -> str:
    if not there:
        return f": write `{attribute} = Connectors(provider=...)` there"
    similar = nearly(attribute, there) or there[0]
    return f"; did you mean {name}:{similar}?"


def _store_of(text: str) -> "Store | None":
    """Return the record that a flag names; None where none is given.

    Raises:
        InvalidSettings: there is no such record.
    """
    kind, _, place = text.partition(":")
    if not text:
        return None
    if kind == "memory" and not place:
        from scheduler.connectors import MemoryStore  # noqa: PLC0415 - needed only here

        return MemoryStore()
    if kind == "sqlite" and place:
        from scheduler.connectors.sqlite import SQLiteStore  # noqa: PLC0415 - needed only here

        return SQLiteStore(place)
    if kind == "kv" and place:
        from scheduler.connectors.bucket import BucketStore  # noqa: PLC0415 - needed only here

        try:
            return BucketStore(place)
        except ValueError as error:
            raise InvalidSettings(f"--store: {error}") from None
    raise InvalidSettings(f"--store: {printable(text, 80)!r} is none of {_STORES}")
