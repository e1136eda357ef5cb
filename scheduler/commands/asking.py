"""What the commands share that ask a running scheduler, or steer one: flags, the deadline, what is said."""

import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec
import trio
from cyclopts import Parameter

from scheduler.bus import Bus
from scheduler.commands.completers import Completer
from scheduler.commands.flags import BrokerFlags, QuietLogFlags, settings_of
from scheduler.commands.parameters import OPTIONS, switch
from scheduler.commands.saying import complain
from scheduler.errors import SteeringError
from scheduler.text import printable

ANSWER_TIMEOUT = 10.0
"""Seconds for the answer to a question or an order."""
WHOLE_TIMEOUT = 60.0
"""... to one that comes in pages."""

_T = TypeVar("_T")

Json: TypeAlias = Annotated[bool, switch("json", "Print JSON instead of text.")]


def option(text: str, completer: Completer | None = None) -> Parameter:
    """A flag that says what is wanted this once: no variable gives it, which would hold for every call."""
    return Parameter(help=text, negative="", group=OPTIONS, show_default=False, completer=completer)


def run_asking(
    broker: BrokerFlags,
    log: QuietLogFlags,
    job: Callable[[Bus], Awaitable[int]],
    *,
    json: bool,
    interrupted: str = "interrupted",
) -> int:
    """Connect, run ``job``, and give its exit code; where a scheduler refuses, say why and give 1.

    Args:
        broker: where the broker is.
        log: what is logged.
        job: gets the bus.
        json: whether a refusal is an answer as well, as JSON on standard output.
        interrupted: what is said when a signal ends it.

    Raises:
        InvalidSettings: a flag is wrong.
        SchedulerError: the broker is not there, or the like.
    """
    settings = settings_of(broker, log)
    # A wrong flag is told, and help shown, without nats-py.
    from scheduler.commands.session import configure_log, run_async, until_signal, with_parts  # noqa: PLC0415

    configure_log(settings)

    async def asking(bus: Bus) -> int:
        try:
            return await job(bus)
        except SteeringError as error:
            if json:
                say_json({"error": {"code": error.code, "message": str(error)}})
            complain(printable(str(error)) + _CURES.get(error.code, ""))
            return 1

    return run_async(
        partial(until_signal, partial(with_parts, settings, None, asking), partial(complain, interrupted))
    )


_CURES = {
    "unknown": "; `scheduler list --all` shows builds, `scheduler status BUILD --components` what is in one",
    "unavailable": "; try again in a moment",
    "internal": "; the scheduler's log says more",
}


async def in_time(question: Awaitable[_T], *, pages: bool = False) -> _T:
    """The answer to a question; it may take longer where it comes in ``pages``.

    Raises:
        SteeringError: there is none in time, with code ``silent``; or the scheduler refuses.
    """
    limit = WHOLE_TIMEOUT if pages else ANSWER_TIMEOUT
    try:
        with trio.fail_after(limit):
            return await question
    except trio.TooSlowError:
        text = f"no answer from the scheduler within {limit:g} s; an order may be carried out nevertheless"
        raise SteeringError("silent", text) from None


def say_json(document: Mapping[str, Any]) -> None:
    """Print a JSON document of version 1, on lines that a person can read too."""
    data = msgspec.json.encode({"v": 1, **document})
    sys.stdout.write(msgspec.json.format(data, indent=2).decode() + "\n")
    sys.stdout.flush()
