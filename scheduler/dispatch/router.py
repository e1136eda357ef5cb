"""Decides which call a reply is meant for, and whether it is the one that counts.

A request has one outcome, however its reply comes (WIRE: "Requests and replies"). The first reply counts;
the others are dropped, and those that a connector should not have sent are counted and logged.

*Two addresses.* A connector answers on the request's own reply subject, which ends with a token that no other
attempt has. Or it answers on ``<request subject>.done`` or ``.error``, which all share: there build and
component in the body say which call is meant, but not which of its attempts.

*Two ways.* A reply comes directly, and once more from the stream that captures replies, if there is one. The
copy may come first, or last, or alone: a reply that came while no process ran is in the stream only.

*Twice.* The same reply again, by the other way or from a connector that repeats it:

- while the first waits for its turn: the second is dropped unread (`Router.await_turn`);
- when the call has its answer and is not closed yet: it is dropped;
- when the call is closed: on its reply subject no call is found any more, and on a shared one none either.
  Where a captured reply was the answer, its direct copy is still to come, and is no mistake of the connector:
  it is expected, and not counted (`Call.direct_copy`, `Router.remove`);
- when it was a failure and the next attempt is in flight: on a shared subject it would end that one, too.
  So the copy of a failure is expected on the other way, and taken for what it is (`Router.note_failure`).

*Late.* An attempt that was given up may still succeed. Its call stays in the tables with a callback,
`Call.late`, which gets whatever comes then; it has its answer, and that does not change.

*Strays.* A reply for a build that this process does not hold is a `Stray`: its build may be about to be taken
up here. A reply on the reply subject of another process is left to that process. Where other instances of a
fleet hear the same shared subjects, a reply without a call is most likely one of theirs: every instance gets
all of them, so it is told by its head, counted, and forgotten.

Everything here is synchronous and does no input or output; `scheduler.dispatch.receiving` does what follows.
"""

from collections.abc import Callable
from enum import Enum
from typing import Final, TypeAlias

from attrs import field, frozen

from scheduler.bus import Message
from scheduler.definition.reply_subjects import ADDRESS, parse
from scheduler.definition.subjects import RESERVED_TYPES
from scheduler.dispatch.call import Call, Copy
from scheduler.dispatch.dropped import DroppedReplies
from scheduler.dispatch.duplicates import DuplicateFilter
from scheduler.dispatch.reply_reader import READ_HERE
from scheduler.errors import InvalidJSON
from scheduler.plan.outcome import read_head

_MOST_COPIES: Final = 10_000
"""Number of copies that are expected; beyond that the oldest is forgotten."""
FOREIGN: Final = "of another instance"
"""Reason of replies that are counted without a line in the log: a fleet has millions of them."""
_SHOWN: Final = 128
"""Characters of a build's id in a log line: a connector may say anything."""

_Waiting: TypeAlias = tuple[Call, str | None, bytes]
_Failure: TypeAlias = tuple["Way", str, str, str, int]


class Way(Enum):
    """Ways of a reply."""

    DIRECT = "direct"
    CAPTURED = "captured"


@frozen
class Stray:
    """Reply for a component that no call of this process is for."""

    build: str
    component: str
    message: Message = field(repr=False)


class Router:
    """Table of the calls in flight, over all builds of this process.

    A *suffix*, ``done`` or ``error``, says that a reply came on a shared subject; None: on a reply subject.

    Args:
        replies: prefix of the reply subjects of this process, before the provider.
        dropped: counts what reaches no call.
        on_stray: callback for replies for builds that this process does not hold; it returns whether it keeps
            them. What it does not keep is counted.
        shares: returns whether other instances work on the same shared subjects; then there are no strays.
    """

    def __init__(
        self,
        replies: str,
        dropped: DroppedReplies,
        on_stray: Callable[[Stray], bool] = lambda _: False,
        shares: Callable[[], bool] = lambda: False,
    ) -> None:
        self.by_token: dict[str, Call] = {}
        """Calls by the `ADDRESS` of their reply subjects, which is the same under each owner's name."""
        self.by_component: dict[tuple[str, str], Call] = {}
        """Calls by build and component."""
        self._by_old_token: dict[str, Call] = {}
        """Calls whose request went out before reply subjects had an owner, by the token of that time."""
        self._replies = replies
        self._dropped = dropped
        self._on_stray = on_stray
        self._shares = shares
        self.waiting: set[_Waiting] = set()
        """Small replies that came directly and wait for their turn."""
        self._copies = DuplicateFilter[Copy](_MOST_COPIES)
        """Direct copies of captured replies that were the answer of a call which is closed."""
        self._failures = DuplicateFilter[_Failure](_MOST_COPIES)
        """Copies of failures that ended an attempt and may still come on the other way."""

    # ---- the table

    def add(self, call: Call) -> None:
        """Register a call, so that its replies find it."""
        self.by_token[call.address] = call
        self.by_component[call.request.build, call.request.component] = call
        if call.inherited is not None and call.inherited.old:
            self._by_old_token[call.inherited.old] = call

    def remove(self, call: Call) -> None:
        """Forget a call; what is still to come of its reply is expected. Idempotent."""
        was_there = self.by_token.pop(call.address, None) is not None
        if call.inherited is not None:
            self._by_old_token.pop(call.inherited.old, None)
        if was_there and call.direct_copy is not None:
            self._copies.expect(call.direct_copy)
        key = call.request.build, call.request.component
        if self.by_component.get(key) is call:
            del self.by_component[key]

    def of_reply_subject(self, subject: str) -> Call | None:
        """Find the call of a reply subject, whichever process made it."""
        # A connector of another provider may not publish on its reply subjects.
        call = self.by_token.get(subject[ADDRESS])
        if call is None and self._by_old_token:
            address = parse(subject)
            return None if address is None or address.owner else self._by_old_token.get(address.token)
        return call

    # ---- a reply that comes directly

    def route_own(self, message: Message) -> Call | None:
        """Find the call for a reply on a reply subject; None where it was dropped."""
        subject = message.subject
        call = self.of_reply_subject(subject)
        if call is None:
            # A reply to another process is not counted here.
            if subject.startswith(self._replies) and not self._copies.take(subject[ADDRESS]):
                self._dropped.count("to no request that waits", subject)
            return None
        return None if self._is_repeated(call, message, None) else call

    def route_shared(self, message: Message, request: str, suffix: str) -> Call | None:
        """Find the call for a reply on a shared subject; None where it was dropped.

        Args:
            message: the reply.
            request: its subject without the suffix.
            suffix: last word of its subject.
        """
        if request.partition(".")[0] in RESERVED_TYPES:
            # A report, and no reply.
            return None
        if (
            not self.by_component
            and self._shares()
            and not (self._copies.expected or self._failures.expected)
        ):
            # Nothing is awaited here, so there is nothing to look for in it.
            self._dropped.note(FOREIGN)
            return None
        try:
            head = read_head(message.data)
        except InvalidJSON:
            self._dropped.count("not a component", message.subject)
            return None
        if head is None:
            self._dropped.count("without service or _component_id", message.subject)
            return None
        if self._failures.expected and self._failures.take(_failure(Way.DIRECT, *head, message)):
            return None
        call = self.by_component.get(head)
        if call is None:
            if self._copies.expected and self._copies.take(head):
                return None
            if self._shares():
                self._dropped.note(FOREIGN)
            else:
                stray = Stray(*head, message)
                if not self._on_stray(stray):
                    self.drop_stray(stray)
        elif call.request.subject != request:
            reason = "of another type, provider or action"
            self._dropped.count(reason, message.subject, build=head[0][:_SHOWN])
        elif not self._is_repeated(call, message, suffix):
            return call
        return None

    def drop_stray(self, stray: Stray) -> None:
        """Drop a reply for a build that this process does not hold."""
        self._dropped.count("for no running component", stray.message.subject, build=stray.build[:_SHOWN])

    def _is_repeated(self, call: Call, message: Message, suffix: str | None) -> bool:
        """Return whether a direct reply changes nothing, as can be said before it has its turn.

        There is an answer already, or the same reply waits for its turn: one that is no good is none the
        second time either.
        """
        if call.late is not None:
            return False
        if call.answer is not None:
            self.drop_repeated(call, message)
            return True
        if self.waiting and _is_comparable(message) and (call, suffix, message.data) in self.waiting:
            self.count(call, message, "duplicate")
            return True
        return False

    def await_turn(self, call: Call, message: Message, suffix: str | None) -> None:
        """Note that a direct reply waits for its turn."""
        if _is_comparable(message):
            self.waiting.add((call, suffix, message.data))

    # ---- a reply that a stream captured

    def route_captured(self, message: Message, suffix: str | None) -> Call | None:
        """Find the call for a captured reply. A reply without a call is counted where it comes directly."""
        if suffix is None:
            return self.of_reply_subject(message.subject)
        try:
            head = read_head(message.data)
        except InvalidJSON:
            return None
        call = None if head is None else self.by_component.get(head)
        if call is None or f"{call.request.subject}.{suffix}" != message.subject:
            return None
        return call

    def is_copy_of_failure(self, call: Call, message: Message) -> bool:
        """Return whether a captured reply on a shared subject ended an earlier attempt of the component."""
        if not self._failures.expected:
            return False
        request = call.request
        taken = self._failures.take(_failure(Way.CAPTURED, request.build, request.component, message))
        # While the attempt that it ended is not booked yet, it holds the position as any reply does.
        return taken and (call.closed or not call.answered)

    # ---- what became of a reply in its turn

    def end_wait(self, call: Call, message: Message, suffix: str | None) -> None:
        """Note that a reply waits for its turn no more. Idempotent."""
        self.waiting.discard((call, suffix, message.data))

    def note_failure(self, call: Call, message: Message, way: Way) -> None:
        """Note that a failure on a shared subject ended an attempt: its copy is to end no other one."""
        other = Way.CAPTURED if way is Way.DIRECT else Way.DIRECT
        self._failures.expect(_failure(other, call.request.build, call.request.component, message))

    def note_captured(self, call: Call, suffix: str | None) -> None:
        """Note that a captured reply was the answer, if it was: its direct copy is still to come."""
        if call.answered:
            request = call.request
            call.direct_copy = call.address if suffix is None else (request.build, request.component)

    def drop_repeated(self, call: Call, message: Message) -> None:
        """Drop a reply to a call that has its answer; counted, unless it is the direct copy of that."""
        if call.direct_copy is not None:
            call.direct_copy = None
        else:
            self.count(call, message, "duplicate")

    def drop_unreadable(self, call: Call, message: Message, error: InvalidJSON) -> None:
        """Drop a reply on a shared subject that turned out to be none."""
        self._dropped.count("not a component", message.subject, build=call.request.build, error=str(error))

    def count(self, call: Call, message: Message, reason: str) -> None:
        """Count a reply that did not become the answer of its call."""
        request = call.request
        self._dropped.count(reason, message.subject, build=request.build, component=request.component)


def _is_comparable(message: Message) -> bool:
    """Return whether a reply is small enough, and plain enough, to be compared with others."""
    return not message.headers and len(message.data) <= READ_HERE


def _failure(way: Way, build: str, component: str, message: Message) -> _Failure:
    """Make the key of a failure, which holds none of its text."""
    return way, build, component, message.subject, hash(message.data)
