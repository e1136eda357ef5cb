"""Whole builds, as several answers need them: fetched once for all who ask at the same time.

A build of 10,000 components takes ten pages, and a tenth of a second. So it is kept, the longer the longer it
took, and dropped when nobody has asked for it for a while.
"""

from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import trio
from attrs import define, field

from scheduler.client.lenient import objects, whole
from scheduler.control.verbs import PAGE, Document
from scheduler.errors import Refused
from scheduler.web.page.asking import OWNER, Desk
from scheduler.web.page.discarding import Discarded
from scheduler.web.page.structure import Whole, structure_of

_FRESH: Final = 1.0
"""Seconds for which a build is kept at least."""
_SHARE: Final = 20.0
"""Seconds for which it is kept, for each second that it took."""
_ENDED: Final = 30.0
"""Seconds for which one is kept that has ended."""
_MOST: Final = 60_000
"""Components of all builds that are kept; one build is kept in any case."""
_UNUSED: Final = 60.0
"""Seconds after which one is dropped that nobody asks for."""
_DEADLINE: Final = 25.0
"""Seconds for all pages."""


@define(eq=False)
class _Entry:
    whole: Whole | None = None
    until: float = float("-inf")
    used: float = 0.0
    refused: Refused | None = None
    """Why it was not had the last time ..."""
    refused_at: float = float("-inf")
    """... and when."""
    turn: trio.Lock = field(factory=trio.Lock)


class Wholes:
    """Fetches whole builds, and keeps them for a moment.

    Args:
        desk: place to ask.
        discarded: frees what is not kept.
    """

    def __init__(self, desk: Desk, discarded: Discarded) -> None:
        self._desk = desk
        self._discarded = discarded
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._kept = trio.Event()

    @property
    def components(self) -> int:
        """Number of components that are kept."""
        return sum(len(entry.whole.rows) for entry in self._entries.values() if entry.whole is not None)

    async def get(self, build: str, since: float = float("-inf")) -> Whole:
        """Return a build.

        Args:
            build: its id.
            since: time on Trio's clock; what was asked for before it is too old.

        Raises:
            Refused: there is no such build, or its owner does not answer.
        """
        entry = self._entries.setdefault(build, _Entry())
        entry.used = asked = trio.current_time()
        self._kept.set()
        self._entries.move_to_end(build)
        try:
            async with entry.turn:
                now = trio.current_time()
                if entry.whole is None or now >= entry.until or entry.whole.at < since:
                    found = await self._fetch_once(build, entry, asked)
                    took = trio.current_time() - now
                    least = _ENDED if "ended" in found.answer else _FRESH
                    self._discard(entry)
                    entry.whole, entry.until = found, trio.current_time() + max(least, _SHARE * took)
                found = entry.whole
        except Refused:
            self._discard(entry)
            raise
        finally:
            self._forget()
        return found

    async def _fetch_once(self, build: str, entry: _Entry, asked: float) -> Whole:
        """Fetch a build, unless that was refused since ``asked``: who waited would wait for nothing again."""
        if entry.refused is not None and entry.refused_at >= asked:
            raise Refused(entry.refused.code, str(entry.refused))
        try:
            return await self._fetch(build, entry.whole)
        except Refused as refused:
            entry.refused, entry.refused_at = Refused(refused.code, str(refused)), trio.current_time()
            raise

    def note(self, build: str, summary: Mapping[str, Any]) -> None:
        """Note a later answer to ``get``: a build whose status is another one is not good any more."""
        entry = self._entries.get(build)
        if entry is None or entry.whole is None:
            return
        if any(entry.whole.answer.get(name) != summary.get(name) for name in ("status", "ended")):
            entry.until = float("-inf")

    async def run(self) -> None:
        """Drop what nobody asks for any more; never returns."""
        while True:
            await self._kept.wait()
            await trio.sleep(_UNUSED / 2)
            self._forget()
            if not self._entries:
                self._kept = trio.Event()

    def _forget(self) -> None:
        """Drop what failed, is unused, or is too much."""
        now, kept = trio.current_time(), 0
        for build, entry in reversed(list(self._entries.items())):
            size = 0 if entry.whole is None else len(entry.whole.rows)
            if entry.turn.locked():
                continue
            kept += size
            if not size or now - entry.used > _UNUSED or (kept > _MOST and kept > size):
                self._discard(entry)
                del self._entries[build]
                kept -= size

    def _discard(self, entry: _Entry) -> None:
        if entry.whole is not None:
            self._discarded.add(entry.whole.rows)
            entry.whole = None

    async def _fetch(self, build: str, before: Whole | None) -> Whole:
        at = trio.current_time()
        question: Document = {"id": build, "graph": True, "limit": PAGE, "from": 0}
        try:
            with trio.fail_after(_DEADLINE):
                answer = await self._desk.ask("get", question)
                rows = list(objects(answer.pop("components", None)))
                following, last = answer.get("next"), 0
                # Each page has to begin after the one before it, or this would never end.
                while isinstance(following, int) and following > last:
                    last = following
                    page = await self._desk.ask("get", question | {"from": following})
                    rows += objects(page.get("components"))
                    following = page.get("next")
        except trio.TooSlowError:
            raise Refused("unavailable", f"{build} did not come within {_DEADLINE:g} s: ask again") from None
        if before is not None and _same(before, answer, rows):
            structure = before.structure
        else:
            job = partial(structure_of, rows)
            structure = await self._desk.executor.run(OWNER, job, long=True)
        return Whole(answer, rows, structure, at)


def _same(before: Whole, answer: Document, rows: list[Mapping[str, Any]]) -> bool:
    """Return whether it is the same build: the edges of one never change."""
    known = before.answer
    return known.get("accepted") == answer.get("accepted") and len(before.rows) == len(rows) == whole(
        answer.get("total"), -1
    )
