"""Lists of the builds of all instances, kept for a moment for all who ask; and pages of them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import trio
from attrs import field, frozen

from scheduler.client.lenient import number, objects, text, whole
from scheduler.client.timeline import FINISHED
from scheduler.control.verbs import PAGE, Document
from scheduler.errors import Refused
from scheduler.runtime.yielding import yield_now
from scheduler.web.page.asking import Desk
from scheduler.web.page.discarding import Discarded

_FRESH: Final = 1.0
"""Seconds for which a list of the builds that run is good at least."""
_FRESH_ENDED: Final = 3.0
"""The same of a list with those that have ended: their reports are read for it."""
_SHARE: Final = 20.0
"""Seconds for which a list is good, for each second that it took."""
_SILENT: Final = 3.0
"""Times of the least for which it is good at most, where an instance said nothing: to wait costs nothing."""
_MOST_PAGES: Final = 200
_DEADLINE: Final = 20.0
"""Seconds for all pages of a list."""
GROUPS: Final = {
    "active": frozenset({"running", "paused", "halted", "quarantined"}),
    "finished": FINISHED,
    "failed": frozenset({"errored", "cancelled"}),
}
"""Names for several statuses."""
STATUSES: Final = frozenset({*GROUPS["active"], *FINISHED})


@frozen(eq=False)
class Listing:
    """Builds of all instances: those that have not ended first, then the newest first."""

    rows: list[Document] = field(repr=False)
    statuses: dict[str, int]
    silent: list[Document]


class Listings:
    """Lists builds.

    Args:
        desk: place to ask.
        discarded: frees what is not kept.
    """

    def __init__(self, desk: Desk, discarded: Discarded) -> None:
        self._desk = desk
        self._discarded = discarded
        self._turn = trio.Lock()
        self._active: dict[str, Document] = {}
        self._ended: dict[str, Document] = {}
        self._listing: Listing | None = None
        self._until = self._ended_until = float("-inf")
        self._silent: list[Document] = []

    def trouble(self) -> str:
        """Return why builds stand still, or are not taken, here; empty where they are well."""
        return self._desk.trouble()

    async def get(self) -> Listing:
        """Return all builds.

        Raises:
            Refused: the service does not answer.
        """
        async with self._turn:
            now = trio.current_time()
            if self._listing is None or now >= self._until:
                await self._renew(now)
                self._until = self._good_until(now, _FRESH)
            assert self._listing is not None
            return self._listing

    def _good_until(self, began: float, least: float) -> float:
        """Return until when a list is good that was begun at a time, on Trio's clock."""
        now = trio.current_time()
        share = _SHARE * (now - began)
        return now + max(least, min(share, _SILENT * least) if self._silent else share)

    async def _renew(self, began: float) -> None:
        active, self._silent = await self._pages(everything=False)
        left = self._active.keys() - active.keys()
        if began >= self._ended_until or left:
            found, _ = await self._pages(everything=True)
            # One whose report is being stored is in neither list: it is looked for again with the next one.
            self._ended_until = self._good_until(began, _FRESH if left - found.keys() else _FRESH_ENDED)
            self._ended = {build: row for build, row in found.items() if row.get("status") in FINISHED}
        if self._listing is not None:
            self._discarded.add(self._listing.rows)
        self._active = active
        ended = {build: row for build, row in self._ended.items() if build not in active}
        job = partial(_sorted, [*active.values(), *ended.values()])
        rows, statuses = await self._desk.beside(200 * (len(active) + len(ended)), job)
        self._listing = Listing(rows, statuses, self._silent)

    async def _pages(self, *, everything: bool) -> tuple[dict[str, Document], list[Document]]:
        found: dict[str, Document] = {}
        silent: dict[str, Document] = {}
        question: Document = {"all": everything, "limit": PAGE}
        try:
            with trio.fail_after(_DEADLINE):
                for _ in range(_MOST_PAGES):
                    page = await self._desk.ask("list", question)
                    found |= {text(row.get("id")): dict(row) for row in objects(page.get("builds"))}
                    silent |= {text(one.get("name")): dict(one) for one in objects(page.get("silent"))}
                    following = page.get("next")
                    if not isinstance(following, str):
                        break
                    question["after"] = following
        except trio.TooSlowError:
            raise Refused("unavailable", f"the list did not come within {_DEADLINE:g} s") from None
        return found, list(silent.values())


def _sorted(rows: list[Document]) -> tuple[list[Document], dict[str, int]]:
    statuses: Counter[str] = Counter()
    for row in rows:
        yield_now()
        counts, total = row.get("counts"), whole(row.get("total"))
        done = whole(counts.get("completed")) if isinstance(counts, Mapping) else 0
        row["progress"] = round(done / total, 4) if total else float(row.get("status") == "done")
        statuses[text(row.get("status"))] += 1
    rows.sort(key=_order)
    return rows, dict(statuses)


def _order(row: Mapping[str, Any]) -> tuple[bool, float, str]:
    since = number(row.get("accepted")) or number(row.get("ended")) or 0.0
    return row.get("status") in FINISHED, -since, text(row.get("id"))


def page_of(
    listing: Listing, statuses: Iterable[str] = (), search: str = "", limit: int = PAGE, after: str = ""
) -> tuple[list[Document], int, str | None]:
    """Return a page of a list, the number of builds that match, and where the next page begins.

    Args:
        listing: all builds.
        statuses: those that are shown; all where there is none.
        search: text that is in id, name, action, owner or error, in any case.
        limit: most builds.
        after: where it begins.
    """
    wanted, sought = frozenset(statuses), search.casefold()
    rows = [row for row in listing.rows if _matches(row, wanted, sought)]
    begin = 0
    if after:
        place = _place_of(after)
        begin = sum(_order(row) <= place for row in rows)
    page = rows[begin : begin + limit]
    more = begin + limit < len(rows)
    return page, len(rows), _told(_order(page[-1])) if more and page else None


def _matches(row: Mapping[str, Any], statuses: frozenset[str], sought: str) -> bool:
    yield_now()
    if statuses and row.get("status") not in statuses:
        return False
    if not sought:
        return True
    return any(
        sought in text(row.get(name)).casefold() for name in ("id", "name", "action", "owner", "error")
    )


def _told(place: tuple[bool, float, str]) -> str:
    return f"{int(place[0])}~{place[1]!r}~{place[2]}"


def _place_of(told: str) -> tuple[bool, float, str]:
    try:
        ended, since, build = told.split("~", 2)
        return ended == "1", float(since), build
    except ValueError:
        raise Refused("invalid", "after: the `next` of another page is required") from None


def statuses_of(words: str) -> frozenset[str]:
    """Return the statuses of comma-separated words, which may name groups.

    Raises:
        Refused: a word is none of them.
    """
    found: set[str] = set()
    for word in filter(None, words.split(",")):
        if word not in GROUPS and word not in STATUSES:
            known = ", ".join(sorted({*GROUPS, *STATUSES}))
            raise Refused("invalid", f"state: {word[:50]!r} is none of {known}")
        found |= GROUPS.get(word, frozenset({word}))
    return frozenset(found)


class Details:
    """Details of builds in a list: expected ends, and what they wait for; a few at a time.

    Args:
        desk: place to ask.
    """

    _KEPT: Final = 5.0
    """Seconds for which details are good."""
    _MOST: Final = 30
    """Builds whose details are asked for at a time."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._known: dict[str, tuple[float, Document]] = {}

    async def add(self, rows: Sequence[Document]) -> list[Document]:
        """Return rows with the details of those that run; what is not known yet, or has ended, has none."""
        now = trio.current_time()
        active = [text(row.get("id")) for row in rows if row.get("status") not in FINISHED][: self._MOST]
        self._known = {build: one for build, one in self._known.items() if now - one[0] < 4 * self._KEPT}
        old = [build for build in active if now - self._known.get(build, (float("-inf"),))[0] >= self._KEPT]
        async with trio.open_nursery() as nursery:
            for build in old:
                nursery.start_soon(self._look, build)
        return [
            row | self._known[row["id"]][1]
            if row.get("id") in self._known and row.get("status") not in FINISHED
            else row
            for row in rows
        ]

    async def _look(self, build: str) -> None:
        found: Document = {}
        try:
            answer = await self._desk.ask("get", {"id": build, "components": False})
            found = {name: answer.get(name) for name in ("eta", "overdue")}
            why = await self._desk.ask("why", {"id": build})
            reasons = objects(why.get("reasons"))
            found["waiting"] = text(reasons[0].get("text"))[:300] if reasons else ""
        except Refused as refused:
            # The list itself says more; this one build is quarantined, or its owner is away.
            found["waiting"] = str(refused)[:300]
        self._known[build] = trio.current_time(), found
