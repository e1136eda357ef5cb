"""Source of the stream of all builds: rows of a list, and which of them changed."""

import time
from collections.abc import Callable
from typing import Final

import trio

from scheduler.control.verbs import Document
from scheduler.errors import Refused
from scheduler.web.page.listing import Details, Listing, Listings

SHOWN: Final = 200
"""Builds that are told of."""
_PERIOD: Final = 1.0
"""Seconds between two looks."""


class OverviewSource:
    """Source of the events of all builds.

    Args:
        listings: list builds.
        details: have the details of builds.
    """

    def __init__(self, listings: Listings, details: Details) -> None:
        self.ending = ""
        self.reason = ""
        self._listings = listings
        self._details = details
        self._listing: Listing | None = None
        self._rows: dict[str, Document] = {}
        self._told: dict[str, Document] = {}
        self._sums: tuple[dict[str, int], list[Document]] | None = None
        self._trouble = self._told_trouble = ""

    async def run(self, stir: Callable[[], None]) -> None:
        """Implement `Source.run`."""
        while True:
            try:
                listing = await self._listings.get()
                rows = await self._details.add(listing.rows[:SHOWN])
            except Refused as refused:
                self._trouble = str(refused)
            else:
                self._trouble = self._listings.trouble()
                self._listing, self._rows = listing, {row["id"]: row for row in rows}
            stir()
            await trio.sleep(_PERIOD)

    async def update(self) -> tuple[Document, bool]:
        """Implement `Source.update`."""
        await trio.lowlevel.checkpoint()
        listing, first = self._listing, self._sums is None
        if listing is None:
            return {}, False
        rows = [row for build, row in self._rows.items() if self._told.get(build) != row]
        gone = [build for build in self._told if build not in self._rows]
        changed: Document = {"builds": rows} if rows else {}
        changed |= {"gone": gone} if gone else {}
        statuses, silent = self._sums or ({}, [])
        changed |= {"statuses": listing.statuses} if statuses != listing.statuses else {}
        changed |= {"silent": listing.silent} if silent != listing.silent else {}
        changed |= {"trouble": self._trouble} if self._trouble != self._told_trouble else {}
        self._told, self._sums = self._rows, (listing.statuses, listing.silent)
        self._told_trouble = self._trouble
        return (changed | {"now": time.time()} if changed else {}), first

    def snapshot(self) -> Document:
        """Implement `Source.snapshot`."""
        listing = self._listing
        return {
            "now": time.time(),
            "builds": list(self._rows.values()),
            "statuses": {} if listing is None else listing.statuses,
            "silent": [] if listing is None else listing.silent,
            "trouble": self._trouble,
        }
