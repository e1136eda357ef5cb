"""The commands that change a running build: each sends its verb, and prints what the scheduler answers."""

import math
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from scheduler.bus import Bus
from scheduler.client.ask import give_order
from scheduler.client.lenient import text
from scheduler.commands.asking import Json, option, run_asking, say_json
from scheduler.commands.completers import components
from scheduler.commands.flags import BROKER_DEFAULTS, QUIET_LOG_DEFAULTS, BrokerFlags, QuietLogFlags
from scheduler.commands.parameters import BuildId, ComponentId, GateId, RunningBuildId
from scheduler.commands.saying import say
from scheduler.commands.signing import As, Reason, signed
from scheduler.control import verbs
from scheduler.control.verbs import description_of
from scheduler.definition.rules import parse_limits
from scheduler.definition.strictjson import decode, kind
from scheduler.errors import InvalidJSON, InvalidRule, InvalidSettings
from scheduler.text import DURATIONS, printable, read_duration, write_duration

_LONGEST = 30 * 86_400.0
"""Seconds by which a timeout can be extended at once."""


def cancel(
    build: RunningBuildId,
    /,
    *,
    now: Annotated[bool, option(description_of(verbs.Cancel, "now"))] = False,
    reason: Reason = "",
    as_: As = "",
    json: Json = False,
    broker: BrokerFlags = BROKER_DEFAULTS,
    log: QuietLogFlags = QUIET_LOG_DEFAULTS,
) -> int:
    """Stop a build: start nothing new, await what is in flight."""
    return _give(verbs.Cancel(id=build, now=now, **signed(reason, as_)), broker, log, json=json)


def pause(
    build: RunningBuildId,
    /,
    *,
    reason: Reason = "",
    as_: As = "",
    json: Json = False,
    broker: BrokerFlags = BROKER_DEFAULTS,
    log: QuietLogFlags = QUIET_LOG_DEFAULTS,
) -> int:
    """Start nothing new in a build until it is resumed."""
    return _give(verbs.Pause(id=build, **signed(reason, as_)), broker, log, json=json)


def resume(
    build: RunningBuildId,
    /,
    *,
    reason: Reason = "",
    as_: As = "",
    json: Json = False,
    broker: BrokerFlags = BROKER_DEFAULTS,
    log: QuietLogFlags = QUIET_LOG_DEFAULTS,
) -> int:
    """Resume a paused build."""
    return _give(verbs.Resume(id=build, **signed(reason, as_)), broker, log, json=json)


def retry(
    build: BuildId,
    component: ComponentId | None = None,
    /,
    *,
    from_: Annotated[str | None, option(description_of(verbs.Retry, "from"), components)] = None,
    now: Annotated[bool, option(description_of(verbs.Retry, "now"))] = False,
    reason: Reason = "",
    as_: As = "",
    json: Json = False,
    broker: BrokerFlags = BROKER_DEFAULTS,
    log: QuietLogFlags = QUIET_LOG_DEFAULTS,
) -> int:
    """Retry what failed in a build, or one of its components."""
    if component is not None and from_ is not None:
        raise InvalidSettings("--from: it is instead of COMPONENT, not beside it")
    if now and component is None:
        raise InvalidSettings("--now: name the COMPONENT whose attempt is to be given up")
    # A scheduler that does not know `from` retries the one component, and not everything.
    request = verbs.Retry(id=build, component=component or from_, start=from_, now=now, **signed(reason, as_))
    return _give(request, broker, log, json=json)


def skip(
    build: RunningBuildId,
    component: ComponentId,
    /,
    *,
    output: Annotated[
        str, option("What its connector would have returned, as a JSON object, or @FILE.")
    ] = "",
    reason: Reason = "",
    as_: As = "",
    json: Json = False,
    broker: BrokerFlags = BROKER_DEFAULTS,
    log: QuietLogFlags = QUIET_LOG_DEFAULTS,
) -> int:
    """Mark a component as done and continue without it."""
    given = _read_output(output) if output else None
    request = verbs.Skip(id=build, component=component, output=given, **signed(reason, as_))
    return _give(request, broker, log, json=json)


def _read_output(given: str) -> dict[str, Any]:
    data = given.encode()
    if given.startswith("@"):
        try:
            data = Path(given[1:]).read_bytes()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise InvalidSettings(f"--output: cannot read {given[1:]!r}: {reason}") from None
    try:
        value = decode(data)
    except InvalidJSON as error:
        raise InvalidSettings(f"--output is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidSettings(
            f'--output must be a JSON object, such as \'{{"vpc_aws_id": "vpc-1"}}\'; it is {kind(value)}'
        )
    return value


def approve(
    build: RunningBuildId,
    component: GateId,
    /,
    *,
    reason: Reason = "",
    as_: As = "",
    json: Json = False,
    broker: BrokerFlags = BROKER_DEFAULTS,
    log: QuietLogFlags = QUIET_LOG_DEFAULTS,
) -> int:
    """Approve a component that waits for a person."""
    return _give(verbs.Approve(id=build, component=component, **signed(reason, as_)), broker, log, json=json)


def reject(
    build: RunningBuildId,
    component: GateId,
    /,
    *,
    reason: Reason = "",
    as_: As = "",
    json: Json = False,
    broker: BrokerFlags = BROKER_DEFAULTS,
    log: QuietLogFlags = QUIET_LOG_DEFAULTS,
) -> int:
    """Reject a component that waits for a person."""
    return _give(verbs.Reject(id=build, component=component, **signed(reason, as_)), broker, log, json=json)


def extend(
    build: RunningBuildId,
    component: ComponentId,
    duration: Annotated[str, Parameter(help="Time to add: seconds, or as 10m.")],
    /,
    *,
    reason: Reason = "",
    as_: As = "",
    json: Json = False,
    broker: BrokerFlags = BROKER_DEFAULTS,
    log: QuietLogFlags = QUIET_LOG_DEFAULTS,
) -> int:
    """Give a running component, or a gate, more time."""
    try:
        seconds = read_duration(duration)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _LONGEST:
        allowed = f"a duration above 0s and up to {write_duration(_LONGEST)}, such as {DURATIONS}"
        raise InvalidSettings(f"DURATION: {printable(duration, 40)!r} is not {allowed}")
    request = verbs.Extend(id=build, component=component, seconds=seconds, **signed(reason, as_))
    return _give(request, broker, log, json=json)


def limit(
    build: RunningBuildId,
    limits: Annotated[str, Parameter(help="Limits by subject: 'vpc.create.*=5, *.create.aws=20/s'.")],
    /,
    *,
    reason: Reason = "",
    as_: As = "",
    json: Json = False,
    broker: BrokerFlags = BROKER_DEFAULTS,
    log: QuietLogFlags = QUIET_LOG_DEFAULTS,
) -> int:
    """Limit the requests of a build, at a time or in a period."""
    try:
        rules = parse_limits(limits)
    except InvalidRule as error:
        raise InvalidSettings(f"LIMITS: {error}") from None
    if not rules:
        raise InvalidSettings("LIMITS: there is none in it; such as 'vpc.create.*=5, *.create.aws=20/s'")
    wanted = {
        rule.pattern: rule.count if rule.period is None else str(rule).partition("=")[2] for rule in rules
    }
    return _give(verbs.Limit(id=build, limits=wanted, **signed(reason, as_)), broker, log, json=json)


def _give(command: verbs.Command, broker: BrokerFlags, log: QuietLogFlags, *, json: bool) -> int:
    return run_asking(broker, log, partial(_send, command, json), json=json)


async def _send(command: verbs.Command, json: bool, bus: Bus) -> int:
    verb = command.verb()
    answer = await give_order(bus, verb, msgspec.to_builtins(command))
    if json:
        say_json(answer)
    else:
        status = printable(text(answer.get("status"))) or "done"
        say(printable(text(answer.get("text"))) or f"{verb}: {status}")
    return 0
