"""``scheduler report BUILD``: the report of a build that has ended, a component of it, or one value."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import msgspec

from scheduler.bus import Bus
from scheduler.client.report import fetch_report, fetch_value
from scheduler.commands.asking import option, run_asking
from scheduler.commands.completers import components
from scheduler.commands.flags import BROKER_DEFAULTS, QUIET_LOG_DEFAULTS, BrokerFlags, QuietLogFlags
from scheduler.commands.output import check_output, write_output
from scheduler.commands.parameters import BuildId
from scheduler.commands.saying import complain
from scheduler.errors import InvalidSettings, SteeringError
from scheduler.text import printable

_MASKED: Final = "secrets are masked (***); --secrets shows them, to users who may see them"


def report(
    build: BuildId,
    /,
    *,
    run: Annotated[int | None, option("Number of the run [default: the last one].")] = None,
    component: Annotated[
        str | None, option("Print only this component, by its id.", completer=components)
    ] = None,
    field: Annotated[
        str | None, option("Print only this value: of the component, else of the build itself.")
    ] = None,
    output: Annotated[Path | None, option("Write it to this file.")] = None,
    secrets: Annotated[bool, option("Show secrets, not ***; permissions may reserve it.")] = False,
    broker: BrokerFlags = BROKER_DEFAULTS,
    log: QuietLogFlags = QUIET_LOG_DEFAULTS,
) -> int:
    """Print the report of a build that has ended, or one value of it."""
    if run is not None and run < 1:
        raise InvalidSettings(f"--run: {run} is not the number of a run; the first one is 1")
    if output is not None:
        check_output(output)
    if component is None and field is None:
        job = partial(write_report, build, run, output, secrets)
    else:
        job = partial(
            _write_value, build, run=run, component=component, field=field, output=output, secrets=secrets
        )
    # A refusal says itself what there is.
    return run_asking(broker, log, job, json=False, cures={})


async def write_report(build: str, run: int | None, output: Path | None, secrets: bool, bus: Bus) -> int:
    """Print the report of a run, or write it to a file, and return the exit code.

    Args:
        build: id of the build.
        run: number of the run; None for the last one.
        output: the file; None to print it.
        secrets: whether to ask for secrets.
        bus: the connection.

    Raises:
        SteeringError: there is no report, or no answer.
        BusError: the bus cannot be used.
    """
    found = await fetch_report(bus, build, run, secrets=secrets)
    if output is None:
        pieces = found.pieces()
        if sys.stdout.isatty():
            pieces = iter([_for_people(b"".join(pieces))])
        if not _print(*pieces):
            return 1
    elif write_output(output, (*found.pieces(), b"\n"), private=secrets):
        complain(f"written: {output}, the report of run {found.run} ({found.status})")
    else:
        return 1
    if found.masked:
        complain(_MASKED)
    return 0


async def save_report(output: Path, secrets: bool, bus: Bus, build: str) -> int:
    """Write the report of a build that has just ended to a file, and return the exit code.

    Raises:
        BusError: the bus cannot be used.
    """
    try:
        return await write_report(build, None, output, secrets, bus)
    except SteeringError as error:
        complain(f"{printable(str(output))} was not written: {printable(str(error))}")
        return 1


async def _write_value(
    build: str,
    bus: Bus,
    *,
    run: int | None,
    component: str | None,
    field: str | None,
    output: Path | None,
    secrets: bool,
) -> int:
    found, masked = await fetch_value(bus, build, run, component=component, path=field, secrets=secrets)
    value = msgspec.json.decode(found)
    if isinstance(value, str):
        text = _harmless(value).encode() if output is None and sys.stdout.isatty() else value.encode()
    elif output is None and sys.stdout.isatty():
        text = _for_people(found)
    else:
        text = found
    if not (_print(text) if output is None else write_output(output, (text, b"\n"), private=secrets)):
        return 1
    if masked:
        complain(_MASKED)
    return 0


def _for_people(data: bytes) -> bytes:
    """Return JSON for a terminal: indented, and what a terminal would obey is escaped."""
    text = msgspec.json.format(data, indent=2).decode()
    if not text.replace("\n", "").isprintable():
        text = "".join(one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in text)
    return text.encode()


def _harmless(value: str) -> str:
    """Return a text for a terminal, which must not obey what a connector has written."""
    return "\n".join(map(printable, value.split("\n")))


def _print(*pieces: bytes) -> bool:
    """Print a text on its own line; return False if it cannot be written, which is then said."""
    sys.stdout.flush()
    try:
        sys.stdout.buffer.writelines((*pieces, b"\n"))
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        complain(f"cannot write to standard output: {error.strerror}")
        return False
    return True
