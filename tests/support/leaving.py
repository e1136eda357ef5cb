"""Builds that an earlier process left in an Ernest store."""

from support.fake_bus import FakeBus


def leave_service(bus: FakeBus) -> None:
    """Of all who listened only the store is left."""
    kept = {"build.>", bus.inbox.subject}
    bus.interests = {sid: one for sid, one in bus.interests.items() if one.subject in kept}
