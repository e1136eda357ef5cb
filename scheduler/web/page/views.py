"""Parts of which the answers of the page are made, shared by all who ask."""

from attrs import frozen

from scheduler.web.board import Board
from scheduler.web.drawing.layouts import Layouts
from scheduler.web.page.asking import Desk
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

    @classmethod
    def of(cls, board: Board) -> "Views":
        """Return the parts for what a board shows."""
        desk = Desk(board)
        return cls(desk, Wholes(desk), Listings(desk), Details(desk), Layouts(desk))
