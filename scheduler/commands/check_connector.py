"""``scheduler check-connector SUBJECT``: puts a connector through the contract that builds rely on."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Final

from cyclopts import Parameter

from scheduler.bus import Bus
from scheduler.commands.asking import Json, duration, option, run_asking, say_json
from scheduler.commands.completers import build_files
from scheduler.commands.files import STANDARD_INPUT
from scheduler.commands.flags import BROKER_DEFAULTS, QUIET_LOG_DEFAULTS, BrokerFlags, QuietLogFlags
from scheduler.commands.parameters import OPTIONS
from scheduler.commands.saying import complain
from scheduler.commands.sources import read_values
from scheduler.contract.checks import Checks
from scheduler.contract.plan import Plan
from scheduler.contract.probe import open_probe
from scheduler.contract.request import Requests, Target
from scheduler.definition.limits import DEFAULT_LIMITS
from scheduler.errors import InvalidSettings

_TOGETHER: Final = 8
_SHORTEST: Final = 0.1
_LONGEST: Final = 3_600.0
"""Seconds of a duration."""
_MOST: Final = 500
"""Requests at once: what a build has in flight at most, by default."""


def _file(text: str) -> Parameter:
    return Parameter(
        help=text,
        negative="",
        group=OPTIONS,
        show_default=False,
        allow_leading_hyphen=True,
        completer=build_files,
    )


def check_connector(
    subject: Annotated[str, Parameter(help="Subject of the connector's requests, such as vpc.create.aws.")],
    /,
    *,
    body: Annotated[
        str | None, _file("File with the fields of a component, JSON or YAML; - for standard input.")
    ] = None,
    slow_body: Annotated[
        str | None,
        _file("File with a component that takes long, for heartbeats and cancellation."),
    ] = None,
    together: Annotated[int, option("Requests to send at once; 0: none [default: 8].")] = _TOGETHER,
    hostile: Annotated[bool, option("Also send what cannot be read.")] = False,
    timeout: Annotated[str, option("Longest time until an answer [default: 1m].")] = "1m",
    within: Annotated[str, option("Longest time between two heartbeats [default: 5s].")] = "5s",
    yes: Annotated[bool, option("Send the requests: the connector carries them out.")] = False,
    json: Json = False,
    broker: BrokerFlags = BROKER_DEFAULTS,
    log: QuietLogFlags = QUIET_LOG_DEFAULTS,
) -> int:
    """Test whether a connector keeps the contract."""
    target = Target.of(subject)
    longest = duration("--timeout", timeout, _SHORTEST, _LONGEST)
    interval = duration("--within", within, _SHORTEST, _LONGEST)
    if not 0 <= together <= _MOST:
        raise InvalidSettings(f"--together: {together} is not a number from 0 to {_MOST}")
    if (body, slow_body) == (STANDARD_INPUT, STANDARD_INPUT):
        raise InvalidSettings("standard input (-) can be read once: give the other one as a file")
    fields = {} if body is None else _read(body)
    slow = None if slow_body is None else _read(slow_body)
    if fields is None or (slow_body is not None and slow is None):
        return 1
    requests = Requests(target)
    plan = Plan(fields, slow, timeout=longest, within=interval, together=together, hostile=hostile)
    acts = f"{target.subject} really acts, up to {plan.most} times: use an account for tests"
    if not yes:
        complain(f"{acts}; nothing is sent without --yes")
        return 2
    complain(f"{acts}. Its components are those of a build {requests.build}")
    return run_asking(
        broker, log, partial(_check, requests, plan, json), json=json, interrupted=f"interrupted: {_LEFT}"
    )


_LEFT: Final = "what the connector has begun, it may still do"


def _read(name: str) -> Mapping[str, Any] | None:
    found = read_values(name, DEFAULT_LIMITS)
    return None if found is None else found.values


async def _check(requests: Requests, plan: Plan, json: bool, bus: Bus) -> int:
    # A wrong flag is told without loading rich.
    from scheduler.contract.output import show  # noqa: PLC0415
    from scheduler.display import Output  # noqa: PLC0415

    async with open_probe(bus, requests) as probe:
        verdict = await Checks(probe, plan).run()
    if json:
        say_json(verdict.document())
    else:
        show(verdict, Output())
    return 0 if verdict.sound else 1
