"""Reads and checks a build from a file, for the commands that take one."""

from scheduler.commands.content_flags import CONTENT_DEFAULTS, ContentFlags
from scheduler.commands.sources import Source, read_source
from scheduler.config import Settings
from scheduler.definition.validation import Prepared, read_build
from scheduler.errors import InvalidBuild


def read_checked(
    file: str, settings: Settings, action: str | None = None, content: ContentFlags = CONTENT_DEFAULTS
) -> tuple[Source, Prepared] | None:
    """Read a build from a file; if it is not valid, print every problem and return None.

    Args:
        file: its name; ``-`` is standard input.
        settings: bounds, and the reading of references.
        action: its action; goes before the one in the file.
        content: its id and values; go before those in the file.

    Raises:
        InvalidSettings: a flag is wrong.
    """
    source = read_source(file, settings, action, content)
    if source is None:
        return None
    try:
        prepared = read_build(
            source.data,
            limits=settings.limits,
            templates=settings.templates,
            unresolved=settings.unresolved,
            action=action,
        )
    except InvalidBuild as error:
        source.complain(error)
        return None
    source.warn_of_unused(prepared)
    return source, prepared
