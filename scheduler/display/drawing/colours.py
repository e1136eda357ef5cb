"""Colours of actions and states, from a palette that colour-blind people can tell apart.

M. Okabe and K. Ito, "Color Universal Design" (https://jfly.uni-koeln.de/color/), with lighter tints as the
ground of dark text.
"""

from typing import Final, NamedTuple


class Colours(NamedTuple):
    """Colours of a node."""

    line: str
    fill: str
    dashed: bool = False


_OTHERWISE: Final = Colours("#6b7280", "#f3f4f6")
_COLOURS: Final = {
    "create": Colours("#009e73", "#e3f5ef"),
    "update": Colours("#c98500", "#fdf3dc"),
    "delete": Colours("#d55e00", "#fce8db"),
    "get": Colours("#0072b2", "#e2f0f9"),
    "find": Colours("#56b4e9", "#ebf6fd"),
    "none": Colours("#6b7280", "#f3f4f6", dashed=True),
    "approve": Colours("#aa4f86", "#f9e9f2"),
    "waiting": _OTHERWISE,
    "gated": Colours("#aa4f86", "#f9e9f2"),
    "running": Colours("#0072b2", "#d5ebf8"),
    "retrying": Colours("#c98500", "#fdf3dc"),
    "completed": Colours("#009e73", "#e3f5ef"),
    "errored": Colours("#d55e00", "#fce8db"),
    "skipped": Colours("#aa4f86", "#f9e9f2", dashed=True),
}


def colours_of(mark: str) -> Colours:
    """Return the colours of an action or a state."""
    return _COLOURS.get(mark, _OTHERWISE)
