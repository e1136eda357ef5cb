"""Tells whether anybody subscribes to the subjects of requests now, as far as the broker says so."""

from collections.abc import Collection, Mapping
from typing import Final

import structlog
import trio

from scheduler.bus import Bus
from scheduler.bus.interest import subscribers
from scheduler.bus.subjects import matches
from scheduler.errors import BusError

_log = structlog.get_logger()

_FRESH: Final = 1.0
"""Seconds for which the broker's list is good."""
_UNKNOWN_FOR: Final = 30.0
"""Seconds until the broker is asked again that does not tell."""
_DEADLINE: Final = 1.0
"""Seconds that all its answers may take: operators wait for that."""
_QUIET: Final = 0.1
"""Seconds to wait for one more server of a cluster to answer."""
_EVERYTHING: Final = frozenset({">", "*.>"})
"""Subscriptions of monitors: whoever has one hears requests, and answers none."""


class Subscribers:
    """Asks the broker who subscribes to what; many who want to know at once cost one question.

    Args:
        bus: a connection in the account of the service.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._lock = trio.Lock()
        self._patterns: dict[str, list[str]] | None = None
        """Subscriptions by their first word, as every connection has inboxes of its own; None: unknown."""
        self._until = -1.0

    async def among(self, subjects: Collection[str]) -> Mapping[str, bool]:
        """Return whether anybody is seen to subscribe to each of these; empty where the broker does not tell.

        Connectors behind leaf nodes and gateways, and in other accounts, are not seen.
        """
        if not subjects:
            return {}
        async with self._lock:
            if trio.current_time() >= self._until:
                await self._ask()
            patterns = self._patterns
        if patterns is None:
            return {}
        return {
            subject: any(
                matches(pattern, subject)
                for word in (subject.partition(".")[0], "*")
                for pattern in patterns.get(word, ())
            )
            for subject in subjects
        }

    async def _ask(self) -> None:
        self._patterns, fresh = None, _UNKNOWN_FOR
        try:
            with trio.fail_after(_DEADLINE):
                found = await subscribers(self._bus, deadline=_DEADLINE, quiet=_QUIET)
        except (BusError, trio.TooSlowError) as error:
            _log.debug("it is not known who subscribes to what", reason=str(error))
        else:
            self._patterns, fresh = {}, _FRESH
            for pattern in found:
                if pattern not in _EVERYTHING:
                    self._patterns.setdefault(pattern.partition(".")[0], []).append(pattern)
        self._until = trio.current_time() + fresh
