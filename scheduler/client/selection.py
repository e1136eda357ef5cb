"""Selects and sorts builds for a list of them. It asks nobody, and knows no terminal."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any, Final, Literal, TypeAlias, get_args

from attrs import frozen

from scheduler.client.lenient import number, text
from scheduler.client.timeline import FINISHED
from scheduler.text import read_duration

Status: TypeAlias = Literal["running", "paused", "halted", "quarantined", "done", "errored", "cancelled"]
Order: TypeAlias = Literal["accepted", "ended", "name", "status", "duration"]
STATUSES: Final[tuple[str, ...]] = get_args(Status)
"""Statuses of builds, in the order of a list that is sorted by them."""
TIMES: Final = "2h, today, yesterday, 2026-01-31 or 2026-01-31T17:00"
"""Forms of a time, for error messages."""
_WILD: Final = "*?["
_LATEST: Final = float("inf")


@frozen
class Selection:
    """Choice of builds, and their order."""

    statuses: frozenset[str] = frozenset()
    """Statuses that are chosen; all if empty."""
    name: str = ""
    """Pattern of the id or the name, with ``*`` and ``?``; without these, a part of either."""
    since: float | None = None
    """Time, seconds since 1970: builds that were accepted or ended since then, or still run."""
    order: Order = "accepted"

    @property
    def finished(self) -> bool:
        """Whether it takes finished builds to answer."""
        return bool(self.statuses & FINISHED) or self.since is not None or self.order == "ended"

    def of(self, builds: Iterable[Mapping[str, Any]], now: float) -> list[Mapping[str, Any]]:
        """Return the chosen builds in their order, the latest, longest or last one at the end.

        Args:
            builds: summaries of builds.
            now: time, seconds since 1970.
        """
        chosen = [build for build in builds if self._chooses(build)]
        # Of equals the one that was accepted later comes later.
        chosen.sort(key=_accepted)
        keys: dict[Order, Any] = {
            "accepted": _accepted,
            "ended": lambda build: _number(build, "ended"),
            "name": lambda build: text(build.get("name")) or text(build.get("id")),
            "status": lambda build: _place(text(build.get("status"))),
            "duration": lambda build: _duration(build, now),
        }
        return sorted(chosen, key=keys[self.order])

    def _chooses(self, build: Mapping[str, Any]) -> bool:
        status = text(build.get("status"))
        if self.statuses and status not in self.statuses:
            return False
        if self.name and not any(_matches(self.name, text(build.get(key))) for key in ("id", "name")):
            return False
        return self.since is None or status not in FINISHED or _last(build) >= self.since


def _matches(pattern: str, name: str) -> bool:
    if any(mark in pattern for mark in _WILD):
        return fnmatchcase(name.casefold(), pattern.casefold())
    return pattern.casefold() in name.casefold()


def _number(build: Mapping[str, Any], key: str) -> float:
    value = number(build.get(key))
    return _LATEST if value is None else value


def _accepted(build: Mapping[str, Any]) -> float:
    # Of finished builds from before this was kept, only the end is known.
    return number(build.get("accepted", build.get("ended"))) or 0.0


def _last(build: Mapping[str, Any]) -> float:
    return max(_accepted(build), number(build.get("ended")) or 0.0)


def _place(status: str) -> int:
    return STATUSES.index(status) if status in STATUSES else len(STATUSES)


def _duration(build: Mapping[str, Any], now: float) -> float:
    began = number(build.get("accepted"))
    ended = number(build.get("ended")) if text(build.get("status")) in FINISHED else now
    return _LATEST if began is None or ended is None else ended - began


def read_time(given: str, now: float) -> float:
    """Read a time in the past: how long ago, as ``2h``; a day; or an ISO time, by the local clock.

    Args:
        given: the text.
        now: time, seconds since 1970.

    Returns:
        The time in seconds since 1970.

    Raises:
        ValueError: it is none of these.
    """
    word = given.strip().lower()
    today = datetime.fromtimestamp(now).astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
    if word in {"today", "yesterday"}:
        # By the calendar: a day may have 23 hours.
        day = today.replace(tzinfo=None) - timedelta(days=word == "yesterday")
        return day.astimezone().timestamp()
    try:
        ago = read_duration(word)
    except ValueError:
        return datetime.fromisoformat(given.strip()).astimezone().timestamp()
    if not 0 <= ago <= now:
        raise ValueError(given)
    return now - ago


def by_type(components: Sequence[Mapping[str, Any]]) -> dict[str, Counter[str]]:
    """Return the number of components by state, for each type; the type with the most comes first.

    Args:
        components: components as a scheduler answers with them; the type begins the subject.
    """
    found: dict[str, Counter[str]] = {}
    for one in components:
        type_ = text(one.get("subject")).partition(".")[0]
        if type_:
            found.setdefault(type_, Counter())[text(one.get("state"))] += 1
    return dict(sorted(found.items(), key=lambda pair: (-pair[1].total(), pair[0])))
