"""Reads and checks a build from a file, for the commands that take one."""

from collections.abc import Sequence
from typing import Final

from attrs import evolve, frozen

from scheduler.commands.content_flags import CONTENT_DEFAULTS, ContentFlags
from scheduler.commands.saying import complain
from scheduler.commands.sources import Source, complain_of_problems, read_source
from scheduler.config import Settings
from scheduler.definition.selection import narrowed, select
from scheduler.definition.validation import Prepared, read_build
from scheduler.errors import InvalidBuild, InvalidSelection
from scheduler.text import count, printable

_MOST_NAMED: Final = 5


@frozen
class Checked:
    """A valid build from a file."""

    source: Source
    prepared: Prepared
    left_out: tuple[str, ...] = ()
    """Ids of the components in the file that are no part of it, as the flags say."""


def read_checked(
    file: str, settings: Settings, action: str | None = None, content: ContentFlags = CONTENT_DEFAULTS
) -> Checked | None:
    """Read a build from a file; if it is not valid, print every problem and return None.

    Args:
        file: its name; ``-`` is standard input.
        settings: bounds, and the reading of references.
        action: its action; goes before the one in the file.
        content: its id and values, which go before those in the file, and the part of it that is wanted.

    Raises:
        InvalidSettings: a flag is wrong.
    """
    source = read_source(file, settings, action, content)
    if source is None:
        return None
    try:
        checked = Checked(source, _read(source, settings, action))
        source.warn_of_unused(checked.prepared)
        if content.target or content.exclude:
            checked = _part(checked, settings, action, content)
    except InvalidBuild as error:
        source.complain(error)
        return None
    except InvalidSelection as error:
        complain_of_problems(source.name, error.problems)
        return None
    return checked


def _part(whole: Checked, settings: Settings, action: str | None, content: ContentFlags) -> Checked:
    """Return the part of a build that the flags select; tell what is left out."""
    graph = whole.prepared.graph
    selection = select(graph, content.target, content.exclude)
    source = evolve(whole.source, data=narrowed(whole.source.data, selection))
    if selection.left_out:
        complain(f"left out: {_named(selection.left_out)} (of {count(len(graph.ids), 'component')})")
    return Checked(source, _read(source, settings, action), selection.left_out)


def _named(ids: Sequence[str]) -> str:
    more = len(ids) - _MOST_NAMED
    names = printable(", ".join(ids[:_MOST_NAMED]))
    return names if more <= 0 else f"{names} and {more:,} more"


def _read(source: Source, settings: Settings, action: str | None) -> Prepared:
    return read_build(
        source.data,
        limits=settings.limits,
        templates=settings.templates,
        unresolved=settings.unresolved,
        action=action,
    )
