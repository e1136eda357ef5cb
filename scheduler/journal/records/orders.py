"""Orders of operators in a log: a header of the record that holds the events which followed from them.

A header, since readers of records are strict: a new event, or a new member of one, would be refused by every
earlier version, and the build left alone. Headers that a version does not know it ignores. So an earlier
version goes on with a build that was operated here, and only knows nothing of who did it.

Reading is lenient for the same reason: nothing that is done to a build follows from this header.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from scheduler.journal.orders import Order

ORDERS_HEADER: Final = "Scheduler-Orders"
ORDERS_IN_A_RECORD: Final = 2
"""Orders beside the events of one record: with their bytes they fit into the room for its headers."""
_MOST_BYTES: Final = 2_048
_LONGEST_NAME: Final = 256
"""Characters of a name that are kept."""
_FITTING: Final = 20
_FITTING_ID: Final = 100
"""Characters of names, and of a component's id, that fit whatever they are: each takes 12 bytes at most."""

_decode: Final = msgspec.json.Decoder(list[dict[str, Any]]).decode


def encode_order(order: Order) -> str:
    """Return an order as JSON in printable ASCII, as it stands in a header; a long reason is cut."""
    kept = replace(order, user=order.user[:_LONGEST_NAME], claim=order.claim[:_LONGEST_NAME])
    while len(text := _encode(kept)) > _MOST_BYTES and kept.reason:
        kept = replace(kept, reason=kept.reason[: len(kept.reason) * 3 // 4])
    for shorter in (_with_short_names, _with_short_id):
        if len(text) > _MOST_BYTES:
            # Many characters that take six or twelve bytes each.
            kept = shorter(kept)
            text = _encode(kept)
    return text


def _with_short_names(order: Order) -> Order:
    return replace(order, user=order.user[:_FITTING], claim=order.claim[:_FITTING])


def _with_short_id(order: Order) -> Order:
    return replace(order, component=order.component[:_FITTING_ID])


def _encode(order: Order) -> str:
    # A lone surrogate, as undecodable bytes of a command line make it, would make the header unreadable.
    document: dict[str, Any] = {"verb": order.verb, "time": order.time, "component": order.component}
    document |= {"user": order.user, "claim": order.claim, "reason": order.reason, "id": order.id}
    kept = {name: _readable(value) for name, value in document.items() if value}
    return json.dumps(kept, separators=(",", ":"))


def _readable(value: Any) -> Any:
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def orders_header(orders: Iterable[str]) -> str:
    """Return the value of the header for orders that `encode_order` wrote."""
    return f"[{','.join(orders)}]"


def read_orders(headers: Mapping[str, str]) -> list[Order]:
    """Read the orders beside a record; what is unknown in them is left out, as are those without a verb."""
    try:
        found = _decode(headers.get(ORDERS_HEADER, "[]").encode())
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return []
    return [order for one in found if (order := _order(one)) is not None]


def _order(document: Mapping[str, Any]) -> Order | None:
    try:
        return msgspec.convert(document, Order)
    except msgspec.ValidationError:
        return None
