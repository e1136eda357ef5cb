"""``scheduler plan FILE``: what a build will do, and for how long, without running it."""

import gc
import sys
from typing import Annotated, Final

import msgspec
from cyclopts import Parameter

from scheduler.commands.checking import read_checked
from scheduler.commands.content_flags import CONTENT_DEFAULTS, ContentFlags
from scheduler.commands.files import BuildAction, BuildFile
from scheduler.commands.flags import (
    BROKER_DEFAULTS,
    QUIET_LOG_DEFAULTS,
    BrokerFlags,
    QuietLogFlags,
    settings_of,
)
from scheduler.commands.parameters import LIMITS, OPTIONS, number, switch, text
from scheduler.commands.service_flags import BUILD_DEFAULTS, BuildFlags
from scheduler.config import Settings, parse_rules
from scheduler.errors import InvalidRule, InvalidSettings
from scheduler.forecast.durations import Durations, Given, parse_durations
from scheduler.forecast.preview import preview, subject_of
from scheduler.setting import flag_of, variables_of

_SETTINGS: Final = Settings()


def plan(
    file: BuildFile,
    /,
    *,
    action: BuildAction = None,
    durations: Annotated[
        str, text("durations", "How long requests take, by subject: 'vpc.create.*=2m30s, *=5'.")
    ] = "",
    rules: Annotated[
        str, text("limits", "The service's limits by subject: 'vpc.create.*=5, *.create.aws=20/s'.", LIMITS)
    ] = "",
    max_in_flight_per_build: Annotated[
        int, number("max_in_flight_per_build", "Requests in flight, of one build.", LIMITS)
    ] = _SETTINGS.max_in_flight_per_build,
    ask: Annotated[
        bool,
        Parameter(
            help="Ask the scheduler for durations and limits.", negative="", group=OPTIONS, show_default=False
        ),
    ] = False,
    json: Annotated[bool, switch("json", "Print JSON instead of text.")] = False,
    content: ContentFlags = CONTENT_DEFAULTS,
    build: BuildFlags = BUILD_DEFAULTS,
    broker: BrokerFlags = BROKER_DEFAULTS,
    log: QuietLogFlags = QUIET_LOG_DEFAULTS,
) -> int:
    """Show what a build will do, without running it."""
    settings = settings_of(build)
    given, limits = _given(durations), parse_rules(rules)
    # A large build is many objects, and none of them is garbage before the process ends.
    gc.disable()
    try:
        checked = read_checked(file, settings, action, content)
        if checked is None:
            return 1
        prepared = checked.prepared
        known, cap = Durations(given), max_in_flight_per_build
        if ask:
            from scheduler.commands.consulting import consult  # noqa: PLC0415 - it loads all of Trio

            subjects = {subject for change in prepared.build.changes if (subject := subject_of(change))}
            answer = consult(subjects, given, broker, log)
            if isinstance(answer, int):
                return answer
            known, limits, cap = answer.durations, answer.rules, answer.cap or cap
        found = preview(prepared, known, limits, cap=cap)
    finally:
        # Nor is it worth a look now, or when the interpreter ends.
        gc.freeze()
        gc.enable()
    if json:
        document = found.document()
        if checked.left_out:
            document["left_out"] = checked.left_out
        line = msgspec.json.format(msgspec.json.encode(document), indent=2)
        sys.stdout.write(line.decode() + "\n")
        return 0
    from scheduler.display import Output  # noqa: PLC0415 - JSON does without
    from scheduler.display.preview import show_preview  # noqa: PLC0415

    show_preview(Output(), found)
    return 0


def _given(durations: str) -> Given:
    try:
        return parse_durations(durations)
    except InvalidRule as error:
        flag, variable = flag_of("durations"), variables_of("durations")[0]
        raise InvalidSettings(f"{flag} ({variable}): {error}") from None
