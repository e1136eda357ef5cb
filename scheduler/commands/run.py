"""``scheduler run FILE``: submits one build and follows it to its result."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from scheduler.commands.asking import option
from scheduler.commands.content_flags import CONTENT_DEFAULTS, ContentFlags
from scheduler.commands.files import BuildAction, BuildFile, compact
from scheduler.commands.flags import (
    BROKER_DEFAULTS,
    QUIET_LOG_DEFAULTS,
    BrokerFlags,
    QuietLogFlags,
    settings_of,
)
from scheduler.commands.output import check_output
from scheduler.commands.parameters import CONTENT, switch
from scheduler.commands.reaching import reach
from scheduler.commands.saying import complain, say
from scheduler.commands.service_flags import (
    BUILD_DEFAULTS,
    EMBEDDED_DEFAULTS,
    PAGE_DEFAULTS,
    BuildFlags,
    EmbeddedFlags,
    PageFlags,
)
from scheduler.commands.simulator_flags import (
    SIMULATOR_DEFAULTS,
    BehaviourFile,
    SimulatorFlags,
    inventing,
    scripted,
)
from scheduler.errors import InvalidSettings

_FRESH: Final = "Run it again, under a new id, if a build of this id ran before or has other content."


def run(
    file: BuildFile,
    /,
    *,
    simulate: Annotated[bool, switch("simulate", "Run simulated connectors in this process.")] = False,
    action: BuildAction = None,
    output: Annotated[
        Path | None, option("Write the report to this file at the end, as `report` does.")
    ] = None,
    secrets: Annotated[bool, option("Show secrets in that file, not ***.")] = False,
    json: Annotated[bool, switch("json", "Print JSON lines instead of a live board.")] = False,
    content: ContentFlags = CONTENT_DEFAULTS,
    fresh: Annotated[bool, Parameter(help=_FRESH, negative="", group=CONTENT, show_default=False)] = False,
    embedded: EmbeddedFlags = EMBEDDED_DEFAULTS,
    page: PageFlags = PAGE_DEFAULTS,
    broker: BrokerFlags = BROKER_DEFAULTS,
    build: BuildFlags = BUILD_DEFAULTS,
    behaviour: BehaviourFile = None,
    connectors: SimulatorFlags = SIMULATOR_DEFAULTS,
    log: QuietLogFlags = QUIET_LOG_DEFAULTS,
) -> int:
    """Submit a build, follow it live and print how it ends."""
    if output is not None:
        check_output(output)
    elif secrets:
        raise InvalidSettings("--secrets is for the report that is written: add --output FILE")
    settings = settings_of(broker, embedded, page, build, log)
    if behaviour is not None and not simulate:
        raise InvalidSettings("--behaviour is for simulated connectors: add --simulate")
    conduct = connectors.behaviour() if simulate else None

    # Wrong flags are reported without loading these.
    from scheduler.commands import session  # noqa: PLC0415
    from scheduler.commands.checking import read_checked  # noqa: PLC0415
    from scheduler.commands.following import Submission, run_build  # noqa: PLC0415
    from scheduler.commands.report import save_report  # noqa: PLC0415
    from scheduler.commands.sources import AUTO, made_up_id  # noqa: PLC0415

    session.configure_log(settings)
    checked = read_checked(file, settings, action, content)
    if checked is None:
        return 1
    if conduct is not None:
        conduct = scripted(conduct, behaviour)
        if conduct is None:
            return 1
        conduct = inventing(conduct, checked.prepared)
    settings = reach(settings, serving=True, aloud=True)
    submission = Submission.of(checked.prepared, compact(checked.source.data))
    if content.id == AUTO and not json:
        say(f"build {submission.id}")

    def renew(before: Submission) -> Submission:
        nonlocal submission
        submission = before.renamed(made_up_id(before.data, before.id))
        return submission

    def interrupted() -> None:
        if settings.embedded:
            complain(f"interrupted: {submission.id} was stopped, with the scheduler in this process")
        else:
            complain(f"interrupted: no longer following {submission.id}; it continues")

    then = None if output is None else partial(save_report, output, secrets)
    # That of an embedded scheduler is told as soon as it is served.
    servers = () if settings.embedded else settings.bus.servers
    job = partial(
        run_build, build=submission, json=json, renew=renew if fresh else None, then=then, servers=servers
    )
    own_folder = settings.embedded and embedded.data_dir is None
    with session.throwaway(settings) if own_folder else nullcontext(settings) as settings:
        return session.run_async(
            partial(session.until_signal, partial(session.with_parts, settings, conduct, job), interrupted)
        )
