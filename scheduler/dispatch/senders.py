"""Senders of messages, as far as they can be told apart, and a queue that gives each sender a turn.

Nothing in NATS says who published a message, with one exception: what is imported from another account has a
header that the server writes, `Nats-Request-Info`, with the account and, where the import says ``share:
true``, the user. Otherwise the reply subject has to do, which its sender chooses: that keeps programs apart
that mean no harm.
"""

import heapq
from collections import OrderedDict, deque
from collections.abc import Mapping
from itertools import count
from typing import Final, Generic, TypeVar

import msgspec
from attrs import define, field

UNKNOWN: Final = ""
"""Sender of all messages that say nothing of their sender: they count as those of one."""

_HEADER: Final = "Nats-Request-Info"
"""Header that the server writes, in exactly this case, over what the client has written there."""
_ACROSS_ACCOUNTS: Final = "_R_."
_GATEWAY: Final = "_GR_."
_GATEWAY_TOKENS: Final = 3
_PREFIX_TOKENS: Final = 2
_OLDEST_EACH: Final = 4
"""Turns of `UNKNOWN` from one for its oldest item to the next; in all others the smallest goes first."""

_T = TypeVar("_T")


class _RequestInfo(msgspec.Struct):
    """Part of the header that is read; the server writes more."""

    acc: str = ""
    user: str = ""


_DECODER: Final = msgspec.json.Decoder(_RequestInfo)


def sender_of(reply: str, headers: Mapping[str, str] | None) -> str:
    """Name the sender of a message, as far as it can be told.

    Args:
        reply: reply subject of the message; empty where it has none.
        headers: headers of the message.

    Returns:
        The account and the user, where the server says so. Else what the reply subject begins with: for
        `_INBOX.<connection>.<number>` that is the connection. `UNKNOWN` where there is neither.

    A client of the scheduler's own account can write the header itself. It gains no more by that than by
    choosing a reply subject: another sender's turn, but never an answer that is not its own.
    """
    reply = _without_gateways(reply)
    if headers is not None and _HEADER in headers and (not reply or reply.startswith(_ACROSS_ACCOUNTS)):
        info = _info(headers[_HEADER])
        if info.acc:
            return f"user {info.acc} {info.user}"
    tokens = reply.split(".")[:-1][:_PREFIX_TOKENS]
    return f"reply {'.'.join(tokens)}" if tokens else UNKNOWN


def user_of(reply: str, headers: Mapping[str, str] | None) -> str:
    """Return ``ACCOUNT/USER`` of the sender of a request, where the broker vouches for it; empty elsewhere.

    The server writes the header over whatever its client wrote, for what is imported from another account;
    such a request has a reply subject of the server, `_R_`. Within the scheduler's own account a client that
    may subscribe to such a subject could write both itself: so nobody there should be allowed to, as in the
    shipped permissions. Without ``share: true`` the server tells the account only.

    Args:
        reply: reply subject of the request.
        headers: its headers.
    """
    if headers is None or _HEADER not in headers or not _without_gateways(reply).startswith(_ACROSS_ACCOUNTS):
        return ""
    info = _info(headers[_HEADER])
    return f"{info.acc}/{info.user}" if info.acc and info.user else info.acc


def _without_gateways(reply: str) -> str:
    while reply.startswith(_GATEWAY):
        reply = ".".join(reply.split(".")[_GATEWAY_TOKENS:])
    return reply


def _info(header: str) -> _RequestInfo:
    try:
        return _DECODER.decode(header)
    except (msgspec.DecodeError, UnicodeError):
        return _RequestInfo()


@define(eq=False)
class _KnownSender(Generic[_T]):
    """Items of one sender, in the order in which they came."""

    items: deque[tuple[_T, int]] = field(factory=deque)
    size: int = 0

    def __len__(self) -> int:
        return len(self.items)

    def put(self, item: _T, size: int) -> None:
        self.items.append((item, size))
        self.size += size

    def take(self) -> _T:
        item, size = self.items.popleft()
        self.size -= size
        return item


@define(eq=False)
class _UnknownSenders(Generic[_T]):
    """Items of `UNKNOWN`: the small before the large, but the oldest is not left for ever."""

    items: dict[int, tuple[_T, int]] = field(factory=dict)
    """Items with their sizes in bytes, by number; so the oldest comes first."""
    by_size: list[tuple[int, int]] = field(factory=list)
    size: int = 0
    numbers: "count[int]" = field(factory=count)
    turns: int = 0

    def __len__(self) -> int:
        return len(self.items)

    def put(self, item: _T, size: int) -> None:
        number = next(self.numbers)
        self.items[number] = item, size
        heapq.heappush(self.by_size, (size, number))
        self.size += size

    def take(self) -> _T:
        self.turns += 1
        number = next(iter(self.items)) if self.turns % _OLDEST_EACH == 0 else self._smallest()
        item, size = self.items.pop(number)
        self.size -= size
        if len(self.by_size) > 2 * len(self.items) + _OLDEST_EACH:
            # Items that went as the oldest still stand there, and may never come to the top.
            self.by_size = [(one[1], number) for number, one in self.items.items()]
            heapq.heapify(self.by_size)
        return item

    def _smallest(self) -> int:
        while True:
            number = heapq.heappop(self.by_size)[1]
            if number in self.items:
                return number


class RoundRobinQueue(Generic[_T]):
    """Items of several senders, bounded in number and bytes; senders take turns.

    A sender's items come out in the order in which they went in; those of `UNKNOWN` the small before the
    large, with every fourth turn for the oldest.

    A sender may have as much in the queue as is left free for the others, so the one that fills it is refused
    first. One alone gets half of the room, two that push a third each, and some room stays free for the next.

    Args:
        most: number of items that the queue holds.
        most_bytes: bytes that it holds, as ``put`` was told.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._queues: OrderedDict[str, _KnownSender[_T] | _UnknownSenders[_T]] = OrderedDict()
        self._count = 0
        self._bytes = 0

    def __len__(self) -> int:
        return self._count

    @property
    def bytes(self) -> int:
        """Size of all items in the queue, in bytes."""
        return self._bytes

    @property
    def senders(self) -> int:
        """Number of senders that have an item in the queue."""
        return len(self._queues)

    def put(self, sender: str, item: _T, size: int) -> bool:
        """Add an item of so many bytes; return False, and do not, where its sender has no room for it."""
        queue = self._queues.get(sender)
        held, held_bytes = (0, 0) if queue is None else (len(queue), queue.size)
        if held + 1 > self._most - self._count or held_bytes + size > self._most_bytes - self._bytes:
            return False
        if queue is None:
            queue = self._queues[sender] = _UnknownSenders() if sender == UNKNOWN else _KnownSender()
        queue.put(item, size)
        self._count += 1
        self._bytes += size
        return True

    def take(self) -> _T | None:
        """Take the next item of the sender whose turn it is; None where the queue is empty."""
        if not self._queues:
            return None
        sender, queue = self._queues.popitem(last=False)
        before = queue.size
        item = queue.take()
        self._count -= 1
        self._bytes -= before - queue.size
        if queue:
            self._queues[sender] = queue
        return item
