"""Displays the instances that share the builds of a scheduler."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Console

from scheduler.client.lenient import number, objects, text, texts, whole
from scheduler.display.lines import Line, columns
from scheduler.display.tables import put, width_of
from scheduler.text import listed, printable, seconds

_HEADS: Final = ("NAME", "STANDING", "VERSION", "BUILDS", "COMPONENTS", "FLIGHT", "LEASE", "UP")
_STYLES: Final = {
    "active": "green",
    "draining": "yellow",
    "standby": "cyan",
    "lapsed": "bold red",
    "gone": "dim",
}
_AT_WORK: Final = frozenset({"active", "draining"})


def show_instances(console: Console, answer: Mapping[str, Any], now: float) -> None:
    """Print a line for each instance, and what they do not agree in.

    Args:
        console: the output.
        answer: the instances.
        now: time, our clock, seconds since 1970.
    """
    instances = objects(answer.get("instances"))
    shared = answer.get("fleet") is True
    store = printable(text(answer.get("store"))) or "unknown"
    if not shared and not instances:
        put(console, [(f"one instance at work: the store {store} is not shared", "")])
        return
    rows = [list(_HEADS), *(_row(one, now) for one in instances)]
    numbers = tuple(range(3, len(_HEADS)))
    for index, row in enumerate(
        columns(rows, width=width_of(console), flexible=(0,), right=numbers, ids=(0,))
    ):
        style = _STYLES.get(row[1].partition(",")[0].strip(), "")
        line: Line = [(f"{row[0]}  ", ""), (row[1], style), ("  " + "  ".join(row[2:]), "")]
        put(console, line if index else [("  ".join(row).rstrip(), "dim")])
    if answered := printable(text(answer.get("answered"))):
        put(console, [(f"answered by {answered}", "dim")])
    if not shared:
        put(console, [(f"one works at a time: the store {store} is not shared", "dim")])
    for difference in differences(instances):
        put(console, [(difference, "yellow")])


def differences(instances: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return in what the instances at work do not agree, as sentences."""
    at_work = [one for one in instances if one.get("standing") in _AT_WORK]
    said = []
    versions = sorted({text(one.get("version")) for one in at_work})
    if len(versions) > 1:
        said.append(f"their versions differ: {printable(listed(versions, len(versions)))}")
    if len({tuple(sorted(texts(one.get("limits")))) for one in at_work}) > 1:
        said.append("their --limits differ: the lowest of each holds")
    return said


def _row(one: Mapping[str, Any], now: float) -> list[str]:
    standing = text(one.get("standing"))
    works = standing in _AT_WORK
    if works and one.get("full") is True:
        standing += ", full"
    age, began = number(one.get("age")), number(one.get("began"))
    # The lease of one that does not work says what it once had.
    names = ("builds", "components", "in_flight")
    figures = [f"{whole(one.get(name)):,}" if works else "-" for name in names]
    return [
        printable(text(one.get("name"))),
        printable(standing),
        printable(text(one.get("version"))),
        *figures,
        "-" if age is None else seconds(age),
        "-" if began is None else seconds(max(0.0, now - began)),
    ]
