"""Shared parts of the commands that ask or steer a running scheduler: flags, deadlines, messages."""

import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Annotated, Any, TypeAlias

import msgspec
from cyclopts import Group, Parameter

from scheduler.bus import Bus
from scheduler.commands.completers import Completer
from scheduler.commands.flags import BrokerFlags, QuietLogFlags, settings_of
from scheduler.commands.parameters import OPTIONS, switch
from scheduler.commands.reaching import asked, reach
from scheduler.commands.saying import complain
from scheduler.errors import InvalidSettings, SteeringError
from scheduler.text import DURATIONS, printable, read_duration

Json: TypeAlias = Annotated[bool, switch("json", "Print JSON instead of text.")]


def option(text: str, completer: Completer | None = None, group: Group = OPTIONS) -> Parameter:
    """Declare a flag without a variable: a variable would apply to every call, and this holds for one."""
    return Parameter(help=text, negative="", group=group, show_default=False, completer=completer)


def duration(flag: str, given: str, low: float, high: float) -> float:
    """Return the seconds that a flag without a variable names.

    Raises:
        InvalidSettings: it is no duration, or not from ``low`` to ``high`` seconds.
    """
    try:
        value = read_duration(given)
    except ValueError:
        value = -1.0
    if not low <= value <= high:
        raise InvalidSettings(f"{flag}: {printable(given, 40)!r} is not a duration, such as {DURATIONS}")
    return value


def run_asking(
    broker: BrokerFlags,
    log: QuietLogFlags,
    job: Callable[[Bus], Awaitable[int]],
    *,
    json: bool,
    interrupted: str = "interrupted",
    cures: Mapping[str, str] | None = None,
) -> int:
    """Connect, run ``job`` and return its exit code; if a scheduler refuses, print why and return 1.

    Args:
        broker: the flags of the broker.
        log: the flags of the log.
        job: called with the bus.
        json: whether to print a refusal as JSON on standard output, too.
        interrupted: the message when a signal ends the command.
        cures: ends of messages by code, in place of the usual ones.

    Raises:
        InvalidSettings: a flag is wrong.
        SchedulerError: the broker cannot be reached or used.
    """
    settings = reach(settings_of(broker, log))
    # Wrong flags are reported, and help is shown, without loading nats-py.
    from scheduler.commands.session import configure_log, run_async, until_signal, with_parts  # noqa: PLC0415

    configure_log(settings)

    async def asking(bus: Bus) -> int:
        try:
            return await job(bus)
        except SteeringError as error:
            if json:
                say_json({"error": {"code": error.code, "message": str(error)}})
            cure = (_CURES if cures is None else cures).get(error.code, "")
            complain(printable(str(error)) + cure + asked(settings.bus))
            return 1

    return run_async(
        partial(until_signal, partial(with_parts, settings, None, asking), partial(complain, interrupted))
    )


_CURES = {
    "unknown": "; see `scheduler list --all`, and `scheduler status BUILD --components`",
    "unavailable": "; try again in a moment",
    "internal": "; the scheduler's log says more",
}


def say_json(document: Mapping[str, Any]) -> None:
    """Print a JSON document of version 1, indented for people."""
    data = msgspec.json.encode({"v": 1, **document})
    sys.stdout.write(msgspec.json.format(data, indent=2).decode() + "\n")
    sys.stdout.flush()
