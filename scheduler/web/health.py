"""Health of the service, as probes ask for it."""

from collections.abc import Callable

from attrs import frozen

from scheduler.bus import Bus
from scheduler.recovery.persistence import Persistence

STARTING = "it is starting, or stands by"


@frozen
class Health:
    """Tells whether the service takes builds, and can work on them."""

    bus: Bus
    persistence: Persistence
    open: Callable[[], bool]
    """Returns whether builds are taken."""
    stopping: Callable[[], bool]
    """Returns whether the service was asked to stop; it still takes builds for a moment."""

    def trouble(self) -> str:
        """Return why no build should be sent here now; empty where it should. It changes nothing."""
        if self.stopping():
            return "it is stopping"
        if not self.open():
            return STARTING
        if not self.bus.connected:
            return "builds are suspended: there is no connection to the broker"
        if not self.persistence.store.available:
            return "builds are suspended: nothing can be committed"
        keeper = self.persistence.fleet or self.persistence.election
        if keeper is not None and not keeper.fresh:
            return "builds are suspended: the lease of this instance is not fresh"
        return ""
