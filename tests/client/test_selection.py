"""Which builds a list has, and in which order."""

from datetime import datetime
from typing import Any

import pytest

from scheduler.client.selection import Order, Selection, by_type, read_time

NOW = datetime(2026, 3, 5, 12, 30).astimezone().timestamp()
HOUR = 3_600.0


def build(name: str, status: str, accepted: float | None, ended: float | None = None) -> dict[str, Any]:
    """A build; times are hours before now."""
    times = {"accepted": accepted, "ended": ended}
    known = {key: NOW - hours * HOUR for key, hours in times.items() if hours is not None}
    return {"id": f"{name}-id", "name": name, "status": status, **known}


BUILDS = [
    build("web", "running", 9),
    build("db", "done", 8, 1),
    build("net", "errored", 7, 6.5),
    build("Prod-eu", "cancelled", 3, 2),
    build("lost", "quarantined", None),
]


def names(selection: Selection) -> list[str]:
    return [one["name"] for one in selection.of(BUILDS, NOW)]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("accepted", "lost web db net Prod-eu"),
        ("ended", "net Prod-eu db lost web"),
        ("name", "Prod-eu db lost net web"),
        ("status", "web lost db net Prod-eu"),
        ("duration", "net Prod-eu db web lost"),
    ],
)
def test_builds_are_sorted(order: Order, expected: str) -> None:
    """The last, latest or longest one at the end, next to the prompt; what has no value as well."""
    assert names(Selection(order=order)) == expected.split()


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(statuses=frozenset({"done", "cancelled"})), "db Prod-eu"),
        (Selection(name="prod-*"), "Prod-eu"),
        (Selection(name="*-ID"), "lost web db net Prod-eu"),
        (Selection(name="e"), "web net Prod-eu"),
        (Selection(name="e*"), ""),
        (Selection(since=NOW - 4 * HOUR), "lost web db Prod-eu"),
        (Selection(since=NOW - 1.5 * HOUR, statuses=frozenset({"done", "errored"})), "db"),
    ],
)
def test_builds_are_chosen(selection: Selection, expected: str) -> None:
    """By status, by pattern or part of id or name, by time; what has not ended goes on."""
    assert names(selection) == expected.split()


@pytest.mark.parametrize(
    ("selection", "wanted"),
    [
        (Selection(), False),
        (Selection(statuses=frozenset({"running"})), False),
        (Selection(name="x", order="duration"), False),
        (Selection(statuses=frozenset({"running", "cancelled"})), True),
        (Selection(since=0.0), True),
        (Selection(order="ended"), True),
    ],
)
def test_finished_builds_are_asked_for_where_they_are_meant(selection: Selection, wanted: bool) -> None:
    """It costs more, and is not what a list is without flags."""
    assert selection.finished is wanted


@pytest.mark.parametrize(
    ("given", "hours"),
    [
        ("2h", 2.0),
        ("90m", 1.5),
        ("today", 12.5),
        ("Yesterday", 36.5),
        ("2026-03-05", 12.5),
        ("2026-03-05T10:30", 2.0),
    ],
)
def test_a_time_is_read(given: str, hours: float) -> None:
    """How long ago, a day, or an ISO time by the local clock."""
    assert NOW - read_time(given, NOW) == pytest.approx(hours * HOUR)


def test_a_time_may_have_a_zone() -> None:
    """And is that moment everywhere."""
    assert read_time("2026-03-05T10:30:00Z", NOW) == read_time("2026-03-05T11:30:00+01:00", NOW)


@pytest.mark.parametrize("given", ["", "foo", "tomorrow", "-2h", "nan", "inf", "2026-13-01"])
def test_what_is_no_time_is_refused(given: str) -> None:
    """By an error that the caller explains."""
    with pytest.raises(ValueError):  # noqa: PT011 - of several kinds
        read_time(given, NOW)


def test_components_are_counted_by_type() -> None:
    """The type with the most comes first, of equals by name; a component without a subject is left out."""
    told = [
        ("vpc.create.aws", "completed"),
        ("vm.create.aws", "running"),
        ("vm.delete.aws", "completed"),
        ("", "x"),
    ]
    found = by_type([{"subject": subject, "state": state} for subject, state in told])
    assert list(found) == ["vm", "vpc"]
    assert found["vm"] == {"running": 1, "completed": 1}
