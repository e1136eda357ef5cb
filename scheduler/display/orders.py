"""Displays the orders of operators about a build."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from scheduler.client.lenient import objects, text, whole
from scheduler.client.orders import ToldOrder, read_order
from scheduler.display.lines import columns
from scheduler.display.tables import put, width_of
from scheduler.text import count, moment, printable

_HEADS = ["TIME", "ORDER", "COMPONENT", "BY", "REASON"]


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
    rows = [_HEADS, *(_row(order, now) for order in told)]
    shown = [0, 1, *(column for column in (2, 3, 4) if any(row[column] for row in rows[1:]))]
    rows = [[row[column] for column in shown] for row in rows]
    shaped = columns(rows, width=width_of(console), flexible=tuple(range(2, len(shown))))
    for index, row in enumerate(shaped):
        put(console, [("  ".join(row).rstrip(), "" if index else "dim")])


def _row(order: ToldOrder, now: float) -> list[str]:
    when = "-" if order.at is None else moment(order.at, now)
    fields = (order.done, order.component, order.who, order.reason)
    return [when, *(printable(field) for field in fields)]
