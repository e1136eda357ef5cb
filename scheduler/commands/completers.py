"""Completes values in a shell: ids of builds and components, files, topics.

Ids come from the scheduler that the command itself would ask. If none answers within `DEADLINE`, nothing is
offered and nothing is printed.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from scheduler.errors import SchedulerError

if TYPE_CHECKING:
    from scheduler.bus import Bus
    from scheduler.config import Settings

DEADLINE: Final = 1.0
"""Seconds to connect and be answered, while a person waits for the shell."""

Candidates = Iterable[tuple[str, str]]
"""Values, each with a short description."""
Completer = Callable[[Any], Candidates]
"""Completer of cyclopts: called with the text typed so far."""
ENDINGS: Final = (".json", ".yaml", ".yml")
"""Ends of the names of files with a build or values."""
_T = TypeVar("_T")


def all_builds(context: Any) -> Candidates:
    """Offer the ids of all builds, finished ones included.

    Args:
        context: the text typed so far, in the form of cyclopts.
    """
    return _builds(context, finished=True)


def running_builds(context: Any) -> Candidates:
    """Offer the ids of the builds that are not finished."""
    return _builds(context, finished=False)


def components(context: Any) -> Candidates:
    """Offer the ids of the components of the build that was typed before."""
    build = context["build"].raw
    if build is None:
        return []
    from scheduler.client.ask import get_build  # noqa: PLC0415 - only a shell asks for it

    answer = _ask(context, lambda bus: get_build(bus, build))
    return [] if answer is None else _described(answer.get("components"), "state")


def waiting_gates(context: Any) -> Candidates:
    """Offer the ids of the components of that build which wait for a person."""
    return [(name, state) for name, state in components(context) if state == "gated"]


def build_files(context: Any) -> Candidates:
    """Offer JSON and YAML files, and folders."""
    return [(path, "") for path in paths(context.incomplete) if path.endswith(("/", *ENDINGS))]


def words(choices: Iterable[str]) -> Completer:
    """Return a completer that offers these words."""
    offered = [(word, "") for word in choices]
    return lambda _context: offered


def builds_or_files(context: Any) -> Candidates:
    """Offer files with a build, and the ids of builds."""
    return [*build_files(context), *all_builds(context)]


def build_ids(_context: Any) -> Candidates:
    """Offer the word in place of which an id is made up."""
    return [("auto", "an id with the time")]


def option_paths(context: Any) -> Candidates:
    """Offer the paths in the ``options`` of the file that was typed before, to be given another value."""
    paths_ = _paths_in(_member_of_file(context, "options"), "")
    return [(f"{path}=", "") for path in paths_ if path.startswith(context.incomplete)]


def component_ids(context: Any) -> Candidates:
    """Offer the components of the file that was typed before."""
    changes = _member_of_file(context, "changes")
    ids = [one.get("_component_id") for one in changes if isinstance(one, dict)] if changes else []
    return [(one, "") for one in ids if isinstance(one, str) and one.startswith(context.incomplete)]


def _member_of_file(context: Any, member: str) -> Any:
    """Return a member of the build in the file that was typed before; None where it cannot be read."""
    name = next((one.raw for key in ("file", "build") if (one := context.get(key)) is not None), None)
    if name is None or not Path(name).is_file():
        return None
    from scheduler.definition.notation import read_text  # noqa: PLC0415 - only a shell asks for it
    from scheduler.definition.strictjson import decode, split_object  # noqa: PLC0415

    try:
        text = read_text(name, Path(name).read_bytes())
        return decode(split_object(text.json)[member]) if text is not None else None
    except (OSError, ValueError, KeyError, SchedulerError):
        return None


def _paths_in(options: Any, before: str) -> Iterator[str]:
    """Yield the paths of all values in an object that are no objects themselves."""
    for key, value in options.items() if isinstance(options, dict) else ():
        path = before + re.sub(r"([.\\])", r"\\\1", key)
        if isinstance(value, dict) and value:
            yield from _paths_in(value, f"{path}.")
        else:
            yield path


def contexts(_context: Any) -> Candidates:
    """Offer the contexts of the ``nats`` command."""
    from scheduler.config.contexts import description_of, known_contexts  # noqa: PLC0415 - only a shell asks

    return [(name, description_of(name)) for name in known_contexts()]


def topics(_context: Any) -> Candidates:
    """Offer the topics of ``scheduler help``."""
    from scheduler.commands.topics import summaries  # noqa: PLC0415 - only a shell asks for it

    return summaries().items()


def paths(start: str) -> Iterator[str]:
    """List the files and folders whose path begins with ``start``; a folder ends with a slash."""
    folder, slash, name = start.rpartition("/")
    before = folder + slash
    try:
        entries = sorted(Path(before or ".").expanduser().iterdir())
        for entry in entries:
            if entry.name.startswith(name) and (name or not entry.name.startswith(".")):
                yield f"{before}{entry.name}{'/' if entry.is_dir() else ''}"
    except (OSError, RuntimeError, ValueError):
        return


def _builds(context: Any, *, finished: bool) -> Candidates:
    from scheduler.client.ask import list_builds  # noqa: PLC0415 - only a shell asks for it

    return _described(_ask(context, lambda bus: list_builds(bus, finished=finished)), "status")


def _described(members: Any, about: str) -> Candidates:
    """Offer ids from an answer, each with one of its members; leave out unprintable ones."""
    found = members if isinstance(members, list) else []
    return [
        (one["id"], str(one.get(about, "")))
        for one in found
        if isinstance(one, Mapping) and isinstance(one.get("id"), str) and one["id"].isprintable()
    ]


def _ask(context: Any, question: Callable[["Bus"], Awaitable[_T]]) -> _T | None:
    """Return a scheduler's answer; None if it cannot be reached at once or does not answer in time."""
    import trio  # noqa: PLC0415 - only a shell asks, and then a network is needed

    from scheduler.bus.nats import open_bus  # noqa: PLC0415
    from scheduler.commands.session import run_async  # noqa: PLC0415

    found: list[_T] = []

    async def ask() -> int:
        with trio.move_on_after(DEADLINE) as scope:

            def give_up(status: str) -> None:
                if not status.startswith("connected"):
                    scope.cancel()

            options = _settings(context).bus
            async with open_bus(options, connect_deadline=DEADLINE, on_status=give_up) as bus:
                found.append(await question(bus))
        return 0

    try:
        run_async(ask)
    except SchedulerError:
        return None
    return found[0] if found else None


def _settings(context: Any) -> "Settings":
    """Read the settings from the flags before the cursor and from the variables."""
    import attrs  # noqa: PLC0415 - only a shell asks for it

    from scheduler.commands.flags import BrokerFlags, QuietLogFlags, settings_of  # noqa: PLC0415
    from scheduler.commands.reaching import reach  # noqa: PLC0415
    from scheduler.setting import flag_of  # noqa: PLC0415

    typed = {}
    for field in attrs.fields(BrokerFlags):
        argument = context.get(flag_of(field.name))
        if argument is not None and argument.provided:
            typed[field.name] = argument.value
    return reach(settings_of(BrokerFlags(**typed), QuietLogFlags()))
