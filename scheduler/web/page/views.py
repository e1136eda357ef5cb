"""Parts of which the answers of the page are made, shared by all who ask."""

import trio
from attrs import frozen

from scheduler.web.board import Board
from scheduler.web.drawing.layouts import Layouts
from scheduler.web.page.asking import Desk
from scheduler.web.page.discarding import Discarded
from scheduler.web.page.listing import Details, Listings
from scheduler.web.page.wholes import Wholes


@frozen
class Views:
    """Parts that fetch, and keep for a moment."""

    desk: Desk
    """Place to ask."""
    wholes: Wholes
    """Whole builds."""
    listings: Listings
    """Lists of builds."""
    details: Details
    """Details of builds in lists."""
    layouts: Layouts
    """Layouts."""
    discarded: Discarded
    """Frees what is not kept."""

    @classmethod
    def of(cls, board: Board) -> "Views":
        """Return the parts for what a board shows."""
        desk, discarded = Desk(board), Discarded()
        wholes, listings = Wholes(desk, discarded), Listings(desk, discarded)
        return cls(desk, wholes, listings, Details(desk), Layouts(desk), discarded)

    async def run(self) -> None:
        """Drop and free what nobody needs any more; never returns."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.wholes.run)
            nursery.start_soon(self.discarded.run)
