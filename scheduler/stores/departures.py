"""Departures of requests: the log records when one has left, once the broker is known to have it."""

from attrs import define

from scheduler.bus import Outgoing
from scheduler.journal.events import Sent
from scheduler.stores import Departure


@define(eq=False)
class _Leaving:
    """A request that was handed to the bus, and is not known to have arrived."""

    number: int
    event: Sent
    departure: Departure
    outgoing: Outgoing


class Departures:
    """The requests of one build that are on their way to the broker."""

    __slots__ = ("_leaving", "_left", "count")

    def __init__(self) -> None:
        self.count = 0
        """Number of requests noted as handed to the bus."""
        self._left: dict[str, float] = {}
        """Time at which each attempt left whose departure is not in the log, by component."""
        self._leaving: list[_Leaving] = []

    def __bool__(self) -> bool:
        return bool(self._leaving)

    def note(self, event: Sent, departure: Departure, outgoing: Outgoing, at: float) -> None:
        """Note a request that is handed to the bus, at the time ``at`` of the build's clock."""
        # Of several copies the first one counts: the deadline of the attempt began with it.
        self._left.setdefault(event.component, at)
        self._leaving.append(_Leaving(self.count, event, departure, outgoing))
        self.count += 1

    def end(self, component: str) -> float | None:
        """Forget an attempt that has ended; return when it left, unless that was returned before."""
        return self._left.pop(component, None)

    def arrived(self, generation: int, count: int) -> list[tuple[Sent, float | None]]:
        """Return the requests that the broker is now known to have, each with the time at which it left.

        Args:
            generation: number of the connection that is known to be sound.
            count: value of `count` at the moment up to which it is.
        """
        kept: list[_Leaving] = []
        arrived: list[tuple[Sent, float | None]] = []
        for leaving in self._leaving:
            departure, outgoing = leaving.departure, leaving.outgoing
            if (
                departure.closed
                or departure.unheard
                or departure.reached
                or departure.outgoing is not outgoing
            ):
                continue
            if leaving.number >= count or not 0 < outgoing.generation <= generation:
                kept.append(leaving)
            elif outgoing.generation == generation:
                departure.reached = True
                arrived.append((leaving.event, self._left.pop(leaving.event.component, None)))
            # Otherwise its connection was lost too early: it cannot be told any more.
        self._leaving = kept
        return arrived

    def forget_leaving(self) -> None:
        """Forget the requests on their way; nothing more is told of them."""
        self._leaving.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._leaving.clear()
        self._left.clear()
