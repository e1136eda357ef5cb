"""Suggests the names that somebody may have meant, for messages about unknown ones."""

from collections.abc import Iterable
from typing import Final

from scheduler.definition.nearly import nearly
from scheduler.runtime.courtesy import give_way
from scheduler.runtime.pace import slices
from scheduler.text import shortened

_AT_ONCE: Final = 200
"""Names that are compared between two turns of other work: a millisecond."""
_SHOWN: Final = 8
"""Names in a list of what there is."""
_LONGEST: Final = 80
"""Characters of a name that are shown."""


async def suggest(name: str, known: Iterable[str], what: str) -> str:
    """Return the end of a message about an unknown name: the one that was probably meant, or what there is.

    Args:
        name: the unknown name.
        known: known names.
        what: noun for the known names, in the plural.
    """
    names = list(known)
    found = [
        near async for some in slices(names, of=_AT_ONCE, pause=give_way) if (near := nearly(name, some))
    ]
    return ended(nearly(name, found) or (found[0] if found else None), names, what)


def ended(near: str | None, names: list[str], what: str) -> str:
    """Return the end of a message: ``; did you mean 'vpc::web'?``, or ``; its fields are id, name``.

    Args:
        near: name that was probably meant, if there is one.
        names: known names.
        what: beginning of their list.
    """
    if near is not None:
        return f"; did you mean {shortened(near, _LONGEST)!r}?"
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return f"; {what}: {', '.join(shortened(one, _LONGEST) for one in names[:_SHOWN])}{more}"
