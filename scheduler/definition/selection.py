"""Parts of a build: what is wanted, all that it needs, and the build without the rest.

A part is a build of its own: it is read, checked and run as any other.
"""

from collections.abc import Collection, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

import msgspec
from attrs import frozen

from scheduler.definition.graph import Graph, Vertex
from scheduler.definition.nearly import nearly
from scheduler.definition.strictjson import Raw, encode, split_list, split_object
from scheduler.errors import InvalidSelection

_WILDCARDS: Final = frozenset("*?[")
_MOST_NAMED: Final = 5
"""Problems of a kind that are listed."""


class _Ends(msgspec.Struct):
    source: Any
    destination: Any


_ends = msgspec.json.Decoder(_Ends).decode


@frozen
class Selection:
    """Part of a build."""

    kept: frozenset[Vertex]
    left_out: tuple[str, ...]
    """Ids of the other components, in the order of the build."""


def select(graph: Graph, targets: Sequence[str] = (), excluded: Sequence[str] = ()) -> Selection:
    """Select the wanted components with all that they depend on, directly or not.

    Args:
        graph: the graph of the build, with the edges that its references imply.
        targets: ids, or patterns such as ``vpc::*`` as a shell has them; all components if empty.
        excluded: ids or patterns of what is left out.

    Raises:
        InvalidSelection: a pattern matches nothing; something that is left out is needed; or nothing is left.
    """
    problems: list[str] = []
    wanted = set(_matching(graph, "target", targets, problems)) if targets else set(range(len(graph.ids)))
    without = set(_matching(graph, "exclude", excluded, problems))
    if problems:
        raise InvalidSelection(problems)
    if both := without.intersection(wanted) if targets else set():
        problems += _listed([f"{graph.ids[one]!r} is both a target and excluded" for one in sorted(both)])
    kept = wanted.union(graph.ancestors(*wanted)) if targets else wanted - without
    needed = {
        (one, dependency)
        for one in kept - without
        for dependency in graph.dependencies[one]
        if dependency in without
    }
    problems += _listed(
        [
            f"{graph.ids[one]!r} needs {graph.ids[dependency]!r}, which is excluded:"
            " keep that one, or exclude both"
            for one, dependency in sorted(needed)
        ]
    )
    if not problems and not kept:
        problems.append("every component is excluded")
    if problems:
        raise InvalidSelection(problems)
    left_out = tuple(name for vertex, name in enumerate(graph.ids) if vertex not in kept)
    return Selection(frozenset(kept), left_out)


def _matching(graph: Graph, what: str, patterns: Sequence[str], problems: list[str]) -> Iterator[Vertex]:
    for pattern in patterns:
        # Ids may have brackets of their own.
        if (vertex := graph.index.get(pattern)) is not None:
            yield vertex
            continue
        found = [vertex for name, vertex in graph.index.items() if fnmatchcase(name, pattern)]
        if not found:
            meant = None if _WILDCARDS.intersection(pattern) else nearly(pattern, graph.ids)
            hint = "" if meant is None else f"; did you mean {meant!r}?"
            problems.append(f"{what} {pattern!r}: the build has no such component{hint}")
        yield from found


def _listed(problems: list[str]) -> list[str]:
    more = len(problems) - _MOST_NAMED
    return problems if more <= 0 else [*problems[:_MOST_NAMED], f"and {more:,} more of this kind"]


def narrowed(data: bytes, selection: Selection) -> bytes:
    """Return a build with only the selected changes, and without the edges of all others.

    What stays keeps its text, so that numbers and texts are as they were given.

    Args:
        data: the build as JSON, which was read without a problem.
        selection: what is selected of it.
    """
    members: dict[str, Any] = dict(split_object(data))
    changes = split_list(members["changes"])
    members["changes"] = [raw for vertex, raw in enumerate(changes) if vertex in selection.kept]
    if "edges" in members and (edges := _elements(members["edges"])):
        left_out = set(selection.left_out)
        members["edges"] = [raw for raw in edges if not _touches(raw, left_out)]
    return encode(members)


def _elements(data: Raw) -> list[Raw]:
    return [] if bytes(data) == b"null" else split_list(data)


def _touches(edge: Raw, ids: Collection[str]) -> bool:
    ends = _ends(edge)
    return ends.source in ids or ends.destination in ids
