"""Pages of components as operators see them, as JSON.

Pages are made one at a time, in slices, after the work of running builds. They are kept, so that many
watchers of the same build cost as little as one.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, TypeAlias

import trio

from scheduler.definition.strictjson import Raw, encode
from scheduler.runtime.courtesy import give_way
from scheduler.supervision.explainer import Seen, component

_MOST_BYTES: Final = 32 * 1024 * 1024
"""Bytes of the pages that are kept."""
_SLICE: Final = 200
"""Components between two turns of other work: a millisecond."""
_MORE_ROWS: Final = 256
"""Characters of an error that cost as much as another component."""

_Key: TypeAlias = tuple[str, str, int, Hashable, int, int, bool]


class Pages:
    """Makes pages, and keeps the last ones."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[_Key, bytes] = OrderedDict()
        self._bytes = 0
        self._turn = trio.Lock()

    @property
    def kept_bytes(self) -> int:
        """Bytes of the pages that are kept."""
        return self._bytes

    async def page(self, seen: Seen, start: int, end: int, *, graph: bool) -> Raw:
        """Return the components from ``start`` to before ``end``, as a JSON list of `explainer.component`.

        Args:
            seen: the build.
            start: the first vertex.
            end: the one after the last.
            graph: whether each component names its dependencies.
        """
        async with self._turn:
            key = _key(seen, start, end, graph=graph)
            page = self._kept.get(key)
            if page is not None:
                self._kept.move_to_end(key)
                return Raw(page)
            page = await _build(seen, start, end, graph=graph)
            # If the build changed meanwhile, the page is of several moments, and no use to others.
            if key == _key(seen, start, end, graph=graph):
                self._keep(key, page)
            return Raw(page)

    def _keep(self, key: _Key, page: bytes) -> None:
        self._kept[key] = page
        self._bytes += len(page)
        while self._bytes > self._most_bytes:
            self._bytes -= len(self._kept.popitem(last=False)[1])


def _key(seen: Seen, start: int, end: int, *, graph: bool) -> _Key:
    # A secret that was learned since is shown on no page.
    known = seen.plan.texts.known
    return (seen.plan.build.id, seen.identity, seen.revision(), known, start, end, graph)


async def _build(seen: Seen, start: int, end: int, *, graph: bool) -> bytes:
    rows = []
    cost = 0
    for vertex in range(start, end):
        row = component(seen, vertex, graph=graph)
        rows.append(encode(row))
        cost += 1 + len(seen.plan.error(vertex) or "") // _MORE_ROWS
        if cost >= _SLICE:
            cost = 0
            await give_way()
    return b"[" + b",".join(rows) + b"]"
