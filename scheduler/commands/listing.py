"""``scheduler list`` and ``scheduler status BUILD``: all builds, and the state of one."""

import time
from functools import partial
from typing import Annotated, get_args

import trio
from cyclopts import Parameter

from scheduler.bus import Bus
from scheduler.client.ask import get_build, list_all
from scheduler.client.lenient import number, objects, text
from scheduler.client.progress import Progress
from scheduler.client.selection import STATUSES, TIMES, Order, Selection, Status, by_type, read_time
from scheduler.commands.asking import Json, option, run_asking, say_json
from scheduler.commands.completers import words
from scheduler.commands.flags import BROKER_DEFAULTS, QUIET_LOG_DEFAULTS, BrokerFlags, QuietLogFlags
from scheduler.commands.parameters import OPTIONS, BuildId
from scheduler.commands.saying import complain, say
from scheduler.errors import InvalidSettings
from scheduler.text import count, printable


def list_(
    *,
    all_: Annotated[bool, option("List finished builds too, while their logs are kept.")] = False,
    status: Annotated[
        tuple[Status, ...],
        Parameter(
            help=f"Only builds of these statuses: {', '.join(STATUSES)}.",
            group=OPTIONS,
            negative="",
            show_default=False,
            show_choices=False,
            consume_multiple=True,
            completer=words(STATUSES),
        ),
    ] = (),
    name: Annotated[str, option("Only builds with this in the id or name; or a pattern, as 'prod-*'.")] = "",
    since: Annotated[str, option(f"Only builds that ran since then: {TIMES}.")] = "",
    sort: Annotated[
        Order,
        Parameter(
            help="Sort by accepted, ended, name, status or duration [default: accepted].",
            group=OPTIONS,
            show_default=False,
            show_choices=False,
            completer=words(get_args(Order)),
        ),
    ] = "accepted",
    json: Json = False,
    broker: BrokerFlags = BROKER_DEFAULTS,
    log: QuietLogFlags = QUIET_LOG_DEFAULTS,
) -> int:
    """List the builds of a scheduler."""
    try:
        earliest = read_time(since, time.time()) if since else None
    except ValueError:
        raise InvalidSettings(f"--since: {printable(since, 40)!r} is no time, such as {TIMES}") from None
    selection = Selection(frozenset(status), name, earliest, sort)
    finished = all_ or selection.finished
    return run_asking(broker, log, partial(_list, finished, selection, json), json=json)


async def _list(finished: bool, selection: Selection, json: bool, bus: Bus) -> int:
    listing = await list_all(bus, finished=finished)
    found = listing.builds
    builds = selection.of(found, time.time())
    for one in listing.silent:
        complain(f"{printable(text(one.get('name')))} does not answer: its builds are not in the list")
    if json:
        say_json({"builds": builds} | ({"silent": listing.silent} if listing.silent else {}))
    elif builds:
        from scheduler.display import Output  # noqa: PLC0415 - it loads rich, for an answer to show
        from scheduler.display.tables import show_builds  # noqa: PLC0415

        show_builds(Output(), builds, time.time())
    elif found:
        say(
            f"none of {count(len(found), 'build')} is like that"
            if len(found) > 1
            else "the only build is not like that"
        )
    else:
        say("no builds" if finished else "no builds are running; --all lists finished ones too")
    return 0


def status(
    build: BuildId,
    /,
    *,
    components: Annotated[bool, option("List every component.")] = False,
    json: Json = False,
    broker: BrokerFlags = BROKER_DEFAULTS,
    log: QuietLogFlags = QUIET_LOG_DEFAULTS,
) -> int:
    """Show the current state of a build."""
    return run_asking(broker, log, partial(_status, build, components, json), json=json)


async def _status(build: str, components: bool, json: bool, bus: Bus) -> int:
    answer = await get_build(bus, build)
    if json:
        types = by_type(objects(answer.get("components")))
        answer.pop("next", None)
        if not components:
            answer.pop("components", None)
        say_json(
            answer | {"types": {name: {**counts, "total": counts.total()} for name, counts in types.items()}}
        )
        return 0
    from scheduler.display import Output  # noqa: PLC0415 - it loads rich, for an answer to show
    from scheduler.display.tables import show_components, show_status  # noqa: PLC0415

    console = Output()
    if components:
        show_components(console, answer, number(answer.get("now")) or time.time())
        return 0
    now = trio.current_time()
    progress = Progress(build, "", now)
    progress.snapshot(answer, now)
    show_status(console, answer, progress, now)
    return 0
