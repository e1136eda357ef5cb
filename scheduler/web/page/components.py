"""Pages of the components of a build: searched, filtered and sorted; and one of them. Pure."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from scheduler.client.lenient import number, text
from scheduler.control.verbs import Document
from scheduler.errors import Refused
from scheduler.runtime.yielding import yield_now
from scheduler.web.page.answers import LETTERS
from scheduler.web.page.structure import Whole

MOST: Final = 1_000
"""Components in an answer."""
_NEEDED_BY: Final = 1_000
_UNDER_WAY: Final = {"running": 0, "retrying": 1, "gated": 2, "errored": 3, "waiting": 4}
_AGES: Final = {"running": "sent", "gated": "due", "waiting": "due"}
"""Time from which the age of a component counts, by its state; that of others from their end."""

_Order = Callable[[Document], Any]


def components_of(
    found: Whole,
    *,
    search: str = "",
    states: frozenset[str] = frozenset(),
    kind: str = "",
    sort: str = "age",
    limit: int = MOST,
    after: int = 0,
) -> Document:
    """Return a page, as `answers.ComponentPage` says; for a thread, where the build is large.

    Args:
        found: the build.
        search: text in id, error or message, in any case.
        states: states that are shown; all where there is none.
        kind: type that is shown; all where it is empty.
        sort: ``age``, ``id`` or ``state``.
        limit: most components.
        after: number of matching ones that are left out before.

    Raises:
        Refused: it cannot be sorted like that, or there is no such state.
    """
    if unknown := states - LETTERS.keys():
        raise Refused("invalid", f"state: {min(unknown)[:50]!r} is none of {', '.join(LETTERS)}")
    if sort not in _ORDERS:
        raise Refused("invalid", f"sort: {sort[:50]!r} is none of {', '.join(_ORDERS)}")
    structure, sought = found.structure, search.casefold()
    types: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    rows = []
    for vertex, row in enumerate(found.rows):
        yield_now()
        type_ = structure.types[structure.type[vertex]]
        types[type_] += 1
        if (kind and type_ != kind) or (states and row.get("state") not in states):
            continue
        if sought and not any(
            sought in text(row.get(name)).casefold() for name in ("id", "error", "message")
        ):
            continue
        counts[text(row.get("state"))] += 1
        rows.append(shown(found, vertex))
    rows.sort(key=_ORDERS[sort])
    page = rows[after : after + limit]
    return {
        "id": found.answer.get("id"),
        "status": found.status,
        "now": found.now,
        "components": page,
        "matching": len(rows),
        "counts": dict(counts),
        "types": dict(types.most_common()),
        "next": after + limit if after + limit < len(rows) else None,
    }


def shown(found: Whole, vertex: int) -> Document:
    """Return a component of a build, with its number and its age in seconds."""
    row = found.rows[vertex]
    document = {name: value for name, value in row.items() if name != "needs"} | {"index": vertex}
    since = number(row.get(_AGES.get(text(row.get("state")), "ended")))
    return document if since is None else document | {"age": round(max(0.0, found.now - since), 3)}


def neighbours_of(found: Whole, vertex: int) -> Document:
    """Return a component with what it needs and what needs it; for a thread."""
    structure = found.structure

    def brief(one: int) -> Document:
        return {"id": structure.ids[one], "index": one, "state": found.rows[one].get("state")}

    return {
        "id": found.answer.get("id"),
        "status": found.status,
        "now": found.now,
        "component": shown(found, vertex),
        "needs": [brief(one) for one in structure.needs[vertex]],
        "needed_by": [brief(one) for one in structure.dependents(vertex)[:_NEEDED_BY]],
    }


def vertex_of(found: Whole, component: str) -> int:
    """Return the number of a component.

    Raises:
        Refused: the build has none of this id.
    """
    vertex = found.structure.index.get(component)
    if vertex is None:
        raise Refused("unknown", f"{found.answer.get('id')} has no component {component[:200]!r}")
    return vertex


def _by_age(row: Mapping[str, Any]) -> tuple[int, float, str]:
    age, place = number(row.get("age")), _UNDER_WAY.get(text(row.get("state")), 5)
    if place < len(_UNDER_WAY) - 1:
        # What is at work or asks for somebody: the oldest first.
        return place, -(age or 0.0), text(row.get("id"))
    return place, float("inf") if age is None else age, text(row.get("id"))


def _by_id(row: Mapping[str, Any]) -> str:
    return text(row.get("id"))


def _by_state(row: Mapping[str, Any]) -> tuple[int, str]:
    return [*LETTERS].index(text(row.get("state")) or "waiting"), text(row.get("id"))


_ORDERS: Final[dict[str, _Order]] = {"age": _by_age, "id": _by_id, "state": _by_state}
