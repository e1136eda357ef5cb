"""Takes in the replies: finds the call of each, gives it its turn, reads it, and delivers the outcome.

`scheduler.dispatch.router` decides, and explains, what counts.
"""

from scheduler.bus import Message
from scheduler.definition.reply_subjects import REPLY
from scheduler.dispatch.call import Call, Signal
from scheduler.dispatch.reply_reader import LargeReply, ReplyReader
from scheduler.dispatch.router import Router, Stray, Way
from scheduler.errors import InvalidJSON, OverLimit
from scheduler.journal.records import Position
from scheduler.plan.outcome import failure
from scheduler.stores.positions import ReplyPositions


class Receiving:
    """Receiving side of this process.

    Args:
        router: decides which call a reply is meant for.
        reader: gives replies their turns, and reads them.
        positions: keeps how far the captured replies were dealt with.
    """

    def __init__(self, router: Router, reader: ReplyReader, positions: ReplyPositions) -> None:
        self._router = router
        self._reader = reader
        self._positions = positions

    def take(self, message: Message) -> None:
        """Take a reply that came directly, on a reply subject or a shared one."""
        router = self._router
        suffix: str | None = None
        if not message.subject.startswith(REPLY):
            request, _, suffix = message.subject.rpartition(".")
            call = router.route_shared(message, request, suffix)
        elif message.no_responders:
            sent = router.of_reply_subject(message.subject)
            if sent is not None:
                sent.deliver(Signal.NOBODY)
            return
        else:
            call = router.route_own(message)
        if call is None:
            return
        if self._reader.in_turn(self._deliver, call, message, suffix):
            router.await_turn(call, message, suffix)

    def redeliver(self, stray: Stray) -> bool:
        """Take a stray again, now that its build may be held; False where no call is for it."""
        if (stray.build, stray.component) not in self._router.by_component:
            return False
        self.take(stray.message)
        return True

    def take_captured(self, message: Message, place: Position, before: Position, provider: str = "") -> None:
        """Take a reply that a stream captured; it may have come directly before, or not.

        Args:
            message: the reply.
            place: position of the reply in its stream.
            before: position of the reply before it.
            provider: provider whose replies the stream holds; empty for the stream of all others.
        """
        suffix = None if message.subject.startswith(REPLY) else message.subject.rpartition(".")[2]
        call = self._router.route_captured(message, suffix)
        if call is None:
            return
        after = call.after.of(provider)
        # Both: clocks may be set back, and a stream that lost its end gives its numbers out again.
        if place.sequence <= after.sequence and place.time <= after.time:
            return
        if suffix is not None and self._router.is_copy_of_failure(call, message):
            return
        self._positions.hold(call.request.build, place.sequence, before, provider)
        at = place.sequence, provider
        if call.answered and not call.closed:
            call.held.append(at)
        else:
            self._reader.in_turn(self._deliver_captured, call, message, suffix, at)

    def _deliver_captured(
        self,
        call: Call,
        message: Message,
        suffix: str | None,
        at: tuple[int, str],
        *,
        large: LargeReply | None = None,
    ) -> None:
        try:
            if call.late is not None:
                self._deliver(call, message, suffix, large=large)
            elif not call.answered:
                self._deliver(call, message, suffix, Way.CAPTURED, large=large)
                self._router.note_captured(call, suffix)
        finally:
            if call.answered and not call.closed:
                call.held.append(at)
            else:
                self._positions.release(call.request.build, *at)

    def _deliver(
        self,
        call: Call,
        message: Message,
        suffix: str | None,
        way: Way = Way.DIRECT,
        *,
        large: LargeReply | None = None,
    ) -> None:
        """Read a reply in its turn, and end the attempt by it."""
        request, router = call.request, self._router
        if router.waiting:
            router.end_wait(call, message, suffix)
        try:
            outcome = self._reader.read(request, message, suffix, large)
        except InvalidJSON as error:
            # Noise on a shared subject is dropped. An unreadable reply counts all the same: waiting longer
            # would not bring a better one.
            if suffix is not None and not isinstance(error, OverLimit):
                router.drop_unreadable(call, message, error)
                return
            outcome = failure(f"the reply cannot be read: {error}")
        if call.late is not None:
            call.late(request, outcome)
            router.count(call, message, "late")
        elif not call.deliver(outcome):
            router.drop_repeated(call, message)
        else:
            self._reader.took(request.build, message)
            if suffix is not None and not outcome.completed:
                router.note_failure(call, message, way)
