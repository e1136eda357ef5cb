"""Displays the orders of operators about a build."""

from collections.abc import Mapping
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from scheduler.client.lenient import objects, text, whole
from scheduler.client.orders import ToldOrder, read_order
from scheduler.display.lines import columns
from scheduler.display.tables import put, width_of
from scheduler.text import count, moment, printable

_INDENT = 4
"""Cells before a reason that has lines of its own."""
_HEADS = ("TIME", "ORDER", "COMPONENT", "BY", "REASON")


def show_history(console: Console, answer: Mapping[str, Any], now: float) -> None:
    """Print a line for each order about a build, the last one at the end.

    Args:
        console: the output.
        answer: the orders.
        now: time, our clock, seconds since 1970.
    """
    build = printable(text(answer.get("id")))
    told = [order for one in objects(answer.get("orders")) if (order := read_order(one)) is not None]
    if dropped := whole(answer.get("dropped")):
        put(console, [(f"{count(dropped, 'order')} before these: `scheduler export {build}`", "dim")])
    if not told:
        put(console, [(f"no operator has changed {build}", "")])
        return
    rows = [list(_HEADS), *(_row(order, now) for order in told)]
    shown = [0, 1, *(column for column in (2, 3, 4) if any(row[column] for row in rows[1:]))]
    rows = [[row[column] for column in shown] for row in rows]
    width, whole_rows = width_of(console), columns(rows, width=None, flexible=())
    if width is None or max(cell_len("  ".join(row)) for row in whole_rows) <= width:
        for index, row in enumerate(whole_rows):
            put(console, [("  ".join(row).rstrip(), "" if index else "dim")])
        return
    # A reason is what a person looks for here: it is not cut, but has lines of its own.
    reasons = [row.pop() for row in rows] if 4 in shown else [""] * len(rows)
    shaped = columns(rows, width=width, flexible=tuple(range(2, len(rows[0]))))
    for index, (row, reason) in enumerate(zip(shaped, reasons, strict=True)):
        put(console, [("  ".join(row).rstrip(), "" if index else "dim")])
        if reason and index:
            console.print(Padding(Text(reason, style="dim"), (0, 0, 0, _INDENT)))


def _row(order: ToldOrder, now: float) -> list[str]:
    when = "-" if order.at is None else moment(order.at, now)
    fields = (order.done, order.component, order.who, order.reason)
    return [when, *(printable(field) for field in fields)]
