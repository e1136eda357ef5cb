"""Orders of operators as a scheduler tells them, in its answers and its events."""

from collections.abc import Mapping
from typing import Any, Final

from attrs import frozen

from scheduler.client.lenient import number, text
from scheduler.text import seconds

_DONE: Final = {
    "cancel": "cancelled",
    "pause": "paused",
    "resume": "resumed",
    "retry": "retried",
    "skip": "skipped",
    "approve": "approved",
    "reject": "rejected",
    "extend": "extended",
    "limit": "limited",
    "release": "released",
}
"""What was done, by verb: also the names of events."""


@frozen
class ToldOrder:
    """Order that was carried out."""

    done: str
    """What was done: ``paused``, ``skipped``, ..."""
    at: float | None
    """Time at which that was done, by the clock of who reads it, seconds; None if unknown."""
    component: str = ""
    by: str = ""
    vouched: bool = False
    """Whether the broker says who it was; otherwise its sender claims it."""
    reason: str = ""

    @property
    def who(self) -> str:
        """Return who gave it, with a mark where that is only claimed; empty if nobody says."""
        return f"{self.by} (claimed)" if self.by and not self.vouched else self.by

    def sentence(self, now: float) -> str:
        """Return it for a person: ``paused 3m00s ago by NAME: waiting for quota``."""
        done = f"{self.done} {self.component}" if self.component else self.done
        when = "" if self.at is None else f" {seconds(max(0.0, now - self.at))} ago"
        by = f" by {self.who}" if self.by else ""
        return f"{done}{when}{by}" + (f": {self.reason}" if self.reason else "")


def read_order(document: Any, ahead: float | None = 0.0) -> ToldOrder | None:
    """Read an order of an answer; None if it is none.

    Args:
        document: the order.
        ahead: seconds by which the scheduler's clock is ahead of ours; None if unknown.
    """
    if not isinstance(document, Mapping) or not (verb := text(document.get("verb"))):
        return None
    at = number(document.get("time"))
    return _read(_DONE.get(verb, verb), document, None if at is None or ahead is None else at - ahead)


def read_event(event: Mapping[str, Any], now: float) -> ToldOrder | None:
    """Read the order in an event of a build that has just happened; None if no operator gave one."""
    done = text(event.get("event"))
    return _read(done, event, now) if done in _DONE.values() else None


def _read(done: str, document: Mapping[str, Any], at: float | None) -> ToldOrder:
    component, by, reason = (text(document.get(name)) for name in ("component", "by", "reason"))
    vouched = document.get("vouched") is True
    return ToldOrder(done, at, component, by, vouched, reason)
