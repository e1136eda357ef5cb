"""Publishes requests, again where nobody received them, and times attempts out."""

import random
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final, TypeAlias

import trio

from scheduler.bus import Bus
from scheduler.bus.subjects import HeaderForm
from scheduler.definition.reply_subjects import BEAT, BEHIND_REPLY
from scheduler.definition.subjects import HeaderValue, attempt_header
from scheduler.dispatch.call import Call, Signal
from scheduler.dispatch.cancelling import Cancelling
from scheduler.dispatch.channels import Channels
from scheduler.dispatch.dropped import DroppedReplies
from scheduler.dispatch.fairness import FairDispatcher
from scheduler.dispatch.gaps import Gaps
from scheduler.dispatch.pulse import HEARTBEAT, WITHIN, Pulse
from scheduler.dispatch.tenure import HeldRequests, Tenure
from scheduler.dispatch.timers import Timers
from scheduler.dispatch.tracing import traced
from scheduler.errors import BusError
from scheduler.plan import Request
from scheduler.plan.outcome import Outcome, failure
from scheduler.runtime.log_limits import RateLimitedLog

ATTEMPT: Final = "Nats-Msg-Id"
"""Header of a request: id of the attempt."""
KEY: Final = "Scheduler-Component-Key"
"""Header that is the same over all attempts of a component."""
_HEADERS: Final = HeaderForm(ATTEMPT, KEY, HEARTBEAT)
_HEADERS_ASKING: Final = HeaderForm(ATTEMPT, KEY, HEARTBEAT, WITHIN)
FIRST_PAUSE: Final = 0.05
"""Seconds until a request that nobody received goes out again, the first time; then longer."""
_LAST_PAUSE: Final = 2.0
"""Seconds that this pause grows to."""
_SUBJECTS: Final = 1_024
"""Subjects of requests of which the timeout is remembered; builds choose them."""

Timeouts: TypeAlias = Callable[[str], float]
"""Seconds that an attempt may take, by the subject of its request."""
Heartbeats: TypeAlias = Callable[[str], float | None]
"""Seconds within which a connector has to beat again, by the subject of a request; None: it need not."""


class Sending:
    """Sending side of this process; the `Exchange` of all its calls.

    Args:
        bus: connection on which requests are published.
        timers: deadlines of attempts.
        dispatcher: gives builds their turns, for an attempt that times out as for a reply.
        replies: prefix of the reply subjects of this process, before the provider.
        gaps: times in which a reply may have been missed.
        dropped: counts attempts that timed out.
        timeouts: seconds that an attempt may take, by request subject; a component's own ``_timeout`` wins.
        heartbeats: seconds within which a connector has to beat again, by request subject; a component's own
            ``_heartbeat`` wins.
        start_timeout: seconds for which a request that nobody listens to is tried again.
        cancelling: tells connectors which attempts are given up.
        forget: callback with a call that is not awaited any more.
        on_expired: callback with attempts whose time has passed, in place of timing them out at once.
        tenure: right of this process to send requests; None where nothing takes it away.
    """

    def __init__(
        self,
        bus: Bus,
        timers: Timers,
        dispatcher: FairDispatcher,
        *,
        replies: str,
        gaps: Gaps,
        dropped: DroppedReplies,
        timeouts: Timeouts,
        heartbeats: Heartbeats | None,
        start_timeout: float,
        cancelling: Cancelling,
        forget: Callable[[Call], None],
        on_expired: Callable[[Call], None] | None = None,
        tenure: Tenure | None = None,
    ) -> None:
        self.replies = replies
        self.channels: Channels[Outcome | Signal] = Channels()
        self.pulses: dict[Call, Pulse] = {}
        self.deaf = False
        """Whether heartbeats cannot be heard, so that their absence says nothing."""
        self.asking = heartbeats is not None
        """Whether heartbeats may be asked for of requests that do not say so themselves."""
        self._on_expired = on_expired
        self._bus = bus
        self._timers = timers
        self._dispatcher = dispatcher
        self._gaps = gaps
        self._dropped = dropped
        # The rules behind it are patterns, and subjects are few.
        self._timeouts = lru_cache(maxsize=_SUBJECTS)(timeouts)
        self._heartbeats = None if heartbeats is None else lru_cache(maxsize=_SUBJECTS)(heartbeats)
        self._cancelling = cancelling
        self._start_timeout = start_timeout
        self._forget = forget
        self._tenure = tenure
        self.held = None if tenure is None else HeldRequests(tenure, self._let_leave, self._taken_back)
        """Requests held back while this process may not send; `HeldRequests.run` has to be running."""
        self._log = RateLimitedLog()

    @property
    def connection(self) -> int:
        """Number of the present connection, `Bus.generation`."""
        return self._bus.generation

    def last_gap(self, request: Request) -> int:
        """Return the connection before which a reply to it may have been missed; 0: none was."""
        return self._gaps.last_for(request)

    # ---- publishing

    def publish(self, call: Call) -> None:
        """Hand a request to the bus; what the bus refuses at once fails the component."""
        try:
            self._publish(call)
        except BusError as error:
            call.deliver(_refused(error))

    def publish_again(self, call: Call) -> bool:
        """Hand the bus a request again that a connector may have; False: not taken, nothing has changed."""
        try:
            self._publish(call)
        except BusError as error:
            self._log.warning(
                "a request could not be sent again",
                build=call.request.build,
                component=call.request.component,
                reason=str(error),
            )
            return False
        return True

    def _publish(self, call: Call) -> None:
        request = call.request
        if call.outgoing is not None and call.outgoing.generation and not call.unheard:
            call.maybe_out = True
        call.unheard = False
        if self._tenure is not None and self.held is not None and (call.unsure or not self._tenure.check()):
            self.held.hold(call)
            return
        key = request.key
        shown = attempt_header(key)
        # The two have the same texts in them.
        attempt = HeaderValue(request.attempt) if shown == key else attempt_header(request.attempt)
        beats = HeaderValue(BEAT + call.reply[BEHIND_REPLY])
        within = self.heartbeat(request) if request.heartbeat is not None or self.asking else None
        if within is None:
            headers = _HEADERS.filled(attempt, shown, beats)
        else:
            headers = _HEADERS_ASKING.filled(attempt, shown, beats, _shortest(within))
        publish = self._bus.publish if request.trace is None else traced(self._bus, request.trace)
        call.outgoing = publish(request.subject, request.body, reply=call.reply, headers=headers)
        if call.maybe_out:
            call.repeated_at = trio.current_time()
        if within is not None and (pulse := self.pulses.get(call)) is not None:
            pulse.sent = self._timers.now()
        if call.departing is not None:
            call.departing(call)

    def _let_leave(self, call: Call) -> None:
        """Publish a request that was held back."""
        if call.timer is not None and (call.expired or not call.maybe_out):
            # It has not had its time yet; of what may be out the time goes on, unless it is over.
            self._timers.cancel(call.timer)
            self.arm(call)
        self.publish(call)

    def _taken_back(self, call: Call) -> None:
        """Let a call end whose time passed while it was held back, and that is not sent again after all."""
        if call.expired and not call.answered:
            self.expire(call)

    def hold_back(self, calls: Iterable[Call]) -> None:
        """Hold back requests until their builds are confirmed: those that wait, and what goes out again."""
        for call in calls:
            call.unsure = True
            if self.held is not None and call.is_queued and call.outgoing is not None:
                call.outgoing.withdraw()
                self.held.hold(call)

    async def repeat(self, call: Call) -> Outcome | Signal:
        """Publish a request again that nobody received, until there is an end; to be called by the waiter.

        It is published with growing pauses, under the same attempt id, until ``start_timeout`` has passed:
        nobody can have received it.

        Returns:
            The end, as `Call.outcome` does.
        """
        unheard_since = 0.0
        generation = -1
        pause = FIRST_PAUSE
        answer: Outcome | Signal = Signal.NOBODY
        while True:
            if not call.wanted and not call.maybe_out:
                call.end(Signal.WITHDRAWN)
                return Signal.WITHDRAWN
            if call.wanted:
                # After a broker's restart the connectors are on their way back, too: the time begins again.
                if generation != self._bus.generation:
                    unheard_since, generation = self._timers.now(), self._bus.generation
                    pause = FIRST_PAUSE
                left = unheard_since + self._start_timeout - self._timers.now()
                if left <= 0 and not call.maybe_out:
                    nobody = failure(f"no connector is subscribed to {call.request.subject}")
                    call.end(nobody)
                    return nobody
                call.backing_off = True
                nap = pause * random.uniform(0.75, 1.25)  # noqa: S311
                with trio.move_on_after(nap if call.maybe_out else min(nap, left)):
                    answer = await call.receive()
                    if answer is not Signal.NOBODY:
                        return answer
                call.backing_off = False
                pause = min(pause * 2, _LAST_PAUSE)
                # A message that came just as the pause ended counts: it may be the end.
                if _is_to_be_published(call):
                    call.publish()
            answer = await call.receive()
            if answer is not Signal.NOBODY:
                return answer

    def refuse(self, subject: str, calls: Iterable[Call]) -> None:
        """Fail those of ``calls`` whose requests on ``subject`` the server refuses."""
        waiting = [
            (call, call.outgoing)
            for call in calls
            if call.request.subject == subject and call.outgoing is not None and not call.answered
        ]
        too_large = [(call, outgoing.refused) for call, outgoing in waiting if outgoing.refused is not None]
        for call, error in too_large:
            call.deliver(_refused(error))
        if not too_large:
            for call, _ in waiting:
                text = f"the broker does not permit us to publish on {subject}"
                call.deliver(failure(text, retryable=False))

    # ---- deadlines

    def seconds(self, request: Request) -> float:
        """Return the seconds that an attempt may take."""
        return request.timeout or self._timeouts(request.subject)

    def heartbeat(self, request: Request) -> float | None:
        """Return the seconds within which its connector has to beat again; None where it need not."""
        if self.deaf:
            return None
        return request.heartbeat or (self._heartbeats and self._heartbeats(request.subject))

    def arm(self, call: Call, seconds: float | None = None) -> None:
        """Start the clock of an attempt: all of its time, or ``seconds``."""
        if seconds is None:
            seconds = self.seconds(call.request) + call.extended
        call.timer = self._timers.start(seconds, self.expire, call)

    def extend(self, call: Call, seconds: float) -> None:
        """Give an attempt more time, whether or not its clock runs yet."""
        call.extended += seconds
        if call.timer is not None:
            left = max(0.0, call.timer.due - self._timers.now())
            self._timers.cancel(call.timer)
            self.arm(call, left + seconds)

    def time_left(self, call: Call) -> float | None:
        """Return the seconds until an attempt times out; None where its clock does not run."""
        timer = call.timer
        return None if timer is None or timer.cancelled else max(0.0, timer.due - self._timers.now())

    def expire(self, call: Call) -> None:
        """Handle a call whose time has passed in its build's turn, like a reply."""
        self._dispatcher.take(call.request.build, self._expire, call)

    def _expire(self, call: Call) -> None:
        if call.closed or call.answered or not self._is_over(call):
            return
        if call.outgoing is not None and call.wanted and not call.maybe_out and call.outgoing.withdraw():
            # It stood in the queue all that time and never left, so it has not had its time yet.
            call.publish()
            self.arm(call)
        elif self._on_expired is not None:
            self._on_expired(call)
        else:
            self.time_out(call)

    def time_out(self, call: Call) -> None:
        """Fail a call whose time has passed without a reply."""
        if not self._is_over(call):
            return
        seconds = self.seconds(call.request) + call.extended
        pulse = call.pulse
        lost = pulse is not None and pulse.lost
        text = pulse.loss if pulse is not None and lost else f"timed out after {seconds:g} s"
        if missed := call.maybe_missed:
            text += f"; {missed}: check whether it was done, then retry or skip it"
        if call.deliver(failure(text)):
            self._dropped.count("connector_lost" if lost else "timed_out")
            self.give_up(call, text)

    def _is_over(self, call: Call) -> bool:
        """Return whether the time of a call has passed; false if it was given more before its turn came."""
        # One that is held back is about to be sent again, and has its time again then.
        return call.expired and not (self.held is not None and call in self.held)

    def lose(self, call: Call) -> None:
        """Fail a call whose connector is lost, as if its time had passed."""
        if call.timer is not None:
            self._timers.cancel(call.timer)
        self.expire(call)

    def go_on(self, call: Call) -> None:
        """Let a call that was about to fail have the rest of its time."""
        if call.timer is not None and call.timer.cancelled and not call.answered:
            self.arm(call, max(0.0, call.timer.due - self._timers.now()))

    def give_up(self, call: Call, reason: str) -> None:
        """Tell connectors that nobody awaits the reply to a request any more, if anybody may have it."""
        if call.may_have_left:
            self._cancelling.tell(call.request, reason)

    def close(self, call: Call) -> None:
        """Stop the clock of a call that nobody awaits any more, and forget it."""
        if call.timer is not None:
            self._timers.cancel(call.timer)
        if self.held is not None:
            self.held.drop(call)
        if self.pulses and (pulse := self.pulses.pop(call, None)) is not None and pulse.timer is not None:
            self._timers.cancel(pulse.timer)
        self._forget(call)


def _is_to_be_published(call: Call) -> bool:
    return not call.answered and (call.wanted or not call.maybe_out)


def _shortest(seconds: float) -> HeaderValue:
    """Write seconds as short as possible: ``30``, ``0.5``."""
    return HeaderValue(repr(float(seconds)).removesuffix(".0"))


def _refused(error: BusError) -> Outcome:
    return failure(f"the request cannot be sent: {error}", retryable=False)
