"""``scheduler validate FILE``: lists every problem of a build, without running it."""

import os
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Annotated

from scheduler.bus import Bus
from scheduler.commands.content_flags import CONTENT_DEFAULTS, ContentFlags
from scheduler.commands.files import BuildAction, BuildFile
from scheduler.commands.flags import (
    BROKER_DEFAULTS,
    QUIET_LOG_DEFAULTS,
    BrokerFlags,
    QuietLogFlags,
    settings_of,
)
from scheduler.commands.parameters import switch
from scheduler.commands.reaching import reach
from scheduler.commands.saying import complain, say
from scheduler.commands.service_flags import BUILD_DEFAULTS, BuildFlags
from scheduler.commands.variables import misspelt_variables
from scheduler.definition.model import UNSENT, Build, State
from scheduler.definition.validation import Prepared
from scheduler.text import count, printable


def validate(
    file: BuildFile,
    /,
    *,
    action: BuildAction = None,
    connectors: Annotated[
        bool, switch("connectors", "Ask the broker for requests without a connector.")
    ] = False,
    content: ContentFlags = CONTENT_DEFAULTS,
    build: BuildFlags = BUILD_DEFAULTS,
    broker: BrokerFlags = BROKER_DEFAULTS,
    log: QuietLogFlags = QUIET_LOG_DEFAULTS,
) -> int:
    """List every problem of a build, each with its place."""
    # Wrong flags are reported without loading this.
    from scheduler.commands.checking import read_checked  # noqa: PLC0415

    settings = settings_of(build, broker, log)
    checked = read_checked(file, settings, action, content)
    if checked is None:
        return 1
    source, prepared = checked.source, checked.prepared
    say(f"{printable(file)} is fine: {describe(prepared)}")
    warn(file, [source.located(hint) for hint in prepared.hints])
    if not connectors:
        return 0
    from scheduler.commands.session import configure_log, run_async, with_parts  # noqa: PLC0415 - as above

    configure_log(settings)
    return run_async(partial(with_parts, reach(settings), None, partial(_ask_broker, prepared.build)))


def warn(file: str, hints: Sequence[str]) -> None:
    """Print probable mistakes: in a build, and in the variables of this process."""
    if hints:
        complain(f"{printable(file)} has {count(len(hints), 'warning')}:")
        sys.stderr.write("".join(f"  {printable(hint)}\n" for hint in hints))
    for text in misspelt_variables(os.environ):
        complain(f"warning: {text}")


def describe(prepared: Prepared) -> str:
    """Describe the size of a build."""
    build = prepared.build
    chain = len(prepared.graph.critical_path())
    return (
        f"{count(len(build.changes), 'component')}, {count(len(build.edges), 'edge')}, longest chain {chain}"
    )


async def _ask_broker(build: Build, bus: Bus) -> int:
    from scheduler.bus.interest import subscribers  # noqa: PLC0415 - only with --connectors
    from scheduler.bus.subjects import matches  # noqa: PLC0415

    patterns = await subscribers(bus)
    untaken: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    for change in build.changes:
        if change.state is State.COMPLETED or change.action in UNSENT:
            continue
        subject = f"{change.type}.{change.action}.{change.provider}"
        if "$(" in subject or "{{" in subject:
            unknown[subject] += 1
        elif not any(matches(pattern, subject) for pattern in patterns):
            untaken[subject] += 1
    for subject, number in sorted(untaken.items()):
        say(f"no connector takes {printable(subject)} ({count(number, 'component')})")
    for subject, number in sorted(unknown.items()):
        say(f"known only when it is due: {printable(subject)} ({count(number, 'component')})")
    if not untaken:
        say("every request has a connector" if not unknown else "every other request has a connector")
    return 1 if untaken else 0
