"""``scheduler demo``: a build followed live, with all that it needs in one process."""

from functools import partial
from typing import Annotated, Literal

import attrs
import msgspec

from scheduler.commands.files import read_example
from scheduler.commands.flags import QUIET_LOG_DEFAULTS, QuietLogFlags, settings_of
from scheduler.commands.parameters import choice, number
from scheduler.commands.saying import complain, say
from scheduler.commands.service_flags import PAGE_DEFAULTS, PageFlags
from scheduler.commands.simulator_flags import (
    SIMULATOR_DEFAULTS,
    BehaviourFile,
    SimulatorFlags,
    inventing,
    scripted,
)
from scheduler.definition.limits import DEFAULT_LIMITS
from scheduler.local.generate import generate
from scheduler.setting import Range
from scheduler.text import count


def demo(
    *,
    example: Annotated[
        Literal["create", "delete"],
        choice("example", Literal["create", "delete"], "Which shipped build to run."),
    ] = "create",
    components: Annotated[
        int,
        number(
            "components",
            "Run a generated build of this many components instead (0: the example).",
            allowed=Range(0, DEFAULT_LIMITS.max_changes),
        ),
    ] = 0,
    behaviour: BehaviourFile = None,
    connectors: SimulatorFlags = SIMULATOR_DEFAULTS,
    page: PageFlags = PAGE_DEFAULTS,
    log: QuietLogFlags = QUIET_LOG_DEFAULTS,
) -> int:
    """Run an example build, with all it needs in this process."""
    settings = settings_of(page, log)
    conduct = scripted(connectors.behaviour(), behaviour)
    if conduct is None:
        return 1

    # Wrong flags are reported without loading these.
    from scheduler.commands import session  # noqa: PLC0415
    from scheduler.commands.following import Submission, run_build  # noqa: PLC0415
    from scheduler.definition.validation import read_build  # noqa: PLC0415
    from scheduler.log import configure_logging  # noqa: PLC0415

    configure_logging(settings.log_level, settings.log_format)
    if components:
        data = msgspec.json.encode(generate(components))
        what = f"a generated build of {count(components, 'component')}"
    else:
        data = msgspec.json.format(read_example(example), indent=-1)
        what = f"the example {example!r}"
    prepared = read_build(data)
    build, conduct = Submission.of(prepared, data), inventing(conduct, prepared)
    say(f"Running {what}. The broker, the scheduler and")
    say("simulated connectors run in this process; no cloud is contacted.\n")
    with session.throwaway(attrs.evolve(settings, embedded=True)) as settings:
        job = partial(run_build, build=build)
        main = partial(session.with_parts, settings, conduct, job, say)
        return session.run_async(
            partial(session.until_signal, main, lambda: complain("interrupted: the demo was stopped"))
        )
