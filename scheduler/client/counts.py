"""States of components, and their numbers."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

STATES: Final = ("waiting", "running", "retrying", "completed", "errored", "skipped")
"""States of a component in events and answers, which are counted."""
GATED: Final = "gated"
"""State in answers of a component that waits for a person; among the counts it is waiting."""
TAKEN_OVER: Final = "taken_over"
"""Event of a build: another process has it from now on."""


def counts_of(changes: Sequence[Mapping[str, Any]], skipped: int) -> dict[str, int]:
    """Return the number of components by state, of `STATES`, at the end of a build.

    Args:
        changes: those of the report, which has no state for skipped components: they are waiting there.
        skipped: number of skipped components, as far as it is known.
    """
    completed = sum(change.get("_state") == "completed" for change in changes)
    errored = sum(change.get("_state") == "errored" for change in changes)
    left = len(changes) - completed - errored
    ended = {"completed": completed, "errored": errored, "skipped": min(skipped, left)}
    return dict.fromkeys(STATES, 0) | ended | {"waiting": left - ended["skipped"]}
