"""A notification: its id, the same however often it is sent, and its body."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from attrs import field, frozen

from scheduler.definition.strictjson import encode

_LONGEST_NAME: Final = 200
"""Characters of a build's name."""


class Kind(StrEnum):
    """Types of notifications."""

    FAILING = "build.failing"
    """The first component of a run has failed for good."""
    GATED = "build.gated"
    """A component waits for a person."""
    FINISHED = "build.finished"
    """The report is out."""


@frozen
class Notice:
    """Notification, ready to be sent."""

    identity: str
    """Id by which a receiver knows a repetition, also of another process."""
    kind: Kind
    build: str
    body: bytes = field(repr=False)


def notice_of(
    kind: Kind,
    build: str,
    *,
    mark: str,
    run: int,
    at: float,
    status: str,
    name: Any,
    action: str,
    counts: Mapping[str, int],
    total: int,
    instance: str,
    component: str | None = None,
    asked: int = 1,
    error: str | None = None,
) -> Notice:
    """Make a notification.

    Args:
        kind: its type.
        build: id of the build.
        mark: mark of the build's acceptance.
        run: number of the run.
        at: time of what happened, seconds since 1970.
        status: status of the build.
        name: name of the build, if that is a text.
        action: what the build is.
        counts: number of components in each state.
        total: number of components.
        instance: name of the scheduler.
        component: component that it is about, if any.
        asked: how often a person was asked about it, this time included.
        error: error without secrets, if any.
    """
    # A gate is told each time that it asks; the others once a run, whichever component they name.
    about = [build, mark, run, kind, *([component, asked] if kind is Kind.GATED else [None])]
    identity = f"msg_{hashlib.sha256(encode(about)).hexdigest()[:32]}"
    body: dict[str, Any] = {"type": kind.value, "id": build}
    if isinstance(name, str) and name:
        body["name"] = name[:_LONGEST_NAME]
    body |= {"action": action, "run": run, "status": status, "time": _written(at)}
    if component is not None:
        body["component"] = component
    if error is not None:
        body["error"] = error
    body |= {"total": total, "counts": dict(counts), "instance": instance}
    return Notice(identity, kind, build, encode(body))


def _written(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
