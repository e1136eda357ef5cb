"""Orders: what operators had a build do, with who gave each, when and why. The audit of a build.

An order is no event: it changes nothing by itself. It stands beside the events that follow from it, in the
same record of the log (`scheduler.journal.records.orders`).
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from scheduler.errors import CarriedOut
from scheduler.runtime.values import Value

MOST_ORDERS: Final = 1_000
"""Orders of a build that are kept in memory, the last ones; the log has all of them."""
ORDER_CARRIED_OUT: Final = "an order of an operator was carried out"
"""Line of the service's log, with the members of `Order.document`."""


class Order(Value, frozen=True):
    """Order of an operator that was carried out."""

    verb: str
    """``cancel``, ``pause``, ``resume``, ``retry``, ``skip``, ``approve``, ``reject``, ``extend``, ``limit``
    or ``release``."""
    time: float = 0.0
    """Time at which it was carried out, in seconds since 1970."""
    component: str = ""
    """Id of the component that it is for; empty for the whole build."""
    user: str = ""
    """Account and user, as ``ACCOUNT/USER``, where the broker vouches for them; empty elsewhere."""
    claim: str = ""
    """Name that the sender gave; nothing proves it."""
    reason: str = ""
    id: str = ""
    """Id that its sender has given it, so that it is carried out once; empty for older senders."""

    @property
    def by(self) -> str:
        """Name of the one who gave it: by the broker's word, or else as the sender claims; may be empty."""
        return self.user or self.claim

    def document(self) -> dict[str, str | float | bool]:
        """Return the order as JSON for operators; members without a value are left out."""
        document: dict[str, str | float | bool] = {"verb": self.verb, "time": self.time}
        if self.component:
            document["component"] = self.component
        if self.by:
            document |= {"by": self.by, "vouched": bool(self.user)}
        if self.user and self.claim:
            document["claim"] = self.claim
        if self.reason:
            document["reason"] = self.reason
        if self.id:
            document["order"] = self.id
        return document


class Orders:
    """Orders of one build, in the order in which they were carried out; the last `MOST_ORDERS` of them."""

    __slots__ = ("_kept", "total")

    def __init__(self) -> None:
        self._kept: deque[Order] | None = None
        """Made for the first one: most builds have none."""
        self.total = 0
        """Number of all orders, also of those that are not kept."""

    def __iter__(self) -> Iterator[Order]:
        return iter(self._kept or ())

    def __len__(self) -> int:
        return len(self._kept or ())

    def add(self, order: Order) -> None:
        """Add an order; the oldest is dropped where there are too many."""
        if self._kept is None:
            self._kept = deque(maxlen=MOST_ORDERS)
        self._kept.append(order)
        self.total += 1

    def drop(self, order: Order) -> None:
        """Forget an order that was added and could not be persisted."""
        if self._kept is not None and order in self._kept:
            self._kept.remove(order)
            self.total -= 1

    def find(self, verb: str, id_: str) -> Order | None:
        """Return the order of this id that was carried out; None where it is not known, or has no id."""
        found = (order for order in reversed(self._kept or ()) if order.id == id_ and order.verb == verb)
        return next(found, None) if id_ else None

    def check_new(self, order: Order) -> None:
        """Check that an order was not carried out yet, as far as its id tells.

        Raises:
            CarriedOut: it was.
        """
        if (before := self.find(order.verb, order.id)) is not None:
            raise CarriedOut(before.time)

    def revise(self, change: Callable[[Order], Order]) -> None:
        """Replace each order that is kept."""
        if self._kept is not None:
            self._kept = deque(map(change, self._kept), maxlen=MOST_ORDERS)

    def last(self, *verbs: str) -> Order | None:
        """Return the last order, or the last of these verbs; None where there is none."""
        found = (order for order in reversed(self._kept or ()) if not verbs or order.verb in verbs)
        return next(found, None)
