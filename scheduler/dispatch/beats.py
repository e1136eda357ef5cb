"""Hears the heartbeats of connectors, and takes a connector for lost from which none come any more.

The absence of heartbeats counts only where a request asks for them. It is judged with care, as a component
that is made twice is worse than one that is late:

- the time is that of the deadlines: it stands still while the broker is away, and all of it begins again with
  each connection, and with each process that awaits the reply;
- what was sent before the time was over counts, also where we are late in reading it: a connector is lost
  only once the broker has answered a question that we asked after that time;
- then the replies of its build that wait for their turn, or were captured, come first, as after a timeout;
- where the heartbeats to an earlier process cannot be heard here, their absence says nothing.

Heartbeats are read as they come, without a turn: each costs some microseconds, of those of one attempt ten a
second are looked at, and what is kept of them has a bound.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, NoReturn

import structlog
import trio

from scheduler.bus import Bus, Listener, Message, Subscription
from scheduler.definition.reply_subjects import BEAT, BEAT_ADDRESS, EVERY_BEAT, beat_interest
from scheduler.dispatch.call import Call
from scheduler.dispatch.pulse import Pulse, read_beat
from scheduler.dispatch.sending import Sending
from scheduler.dispatch.timers import Timers
from scheduler.errors import BusError, InvalidJSON, NotPermitted
from scheduler.runtime.log_limits import RateLimitedLog
from scheduler.runtime.pace import paced

_log = structlog.get_logger()

_GRAIN: Final = 1e-3
"""Seconds within which a time counts as over."""
_ANSWER: Final = 10.0
"""Seconds for the broker to answer the question behind which no earlier heartbeat can come."""
_AT_ONCE: Final = 100
"""Attempts that are judged before others have a turn."""


class Beats:
    """Heartbeats for the requests of this process, and of those before it; `run` has to be running.

    Args:
        bus: connection that they come in on.
        timers: deadlines.
        sending: has the pulses, and fails attempts whose connector is lost.
        calls: calls in flight, by the `ADDRESS` of their reply subjects.
        owner: name of this process in subjects.
        listener: second connection that they come in on, too; one that comes twice is harmless.
        on_news: callback for when a heartbeat says something new.
    """

    def __init__(
        self,
        bus: Bus,
        timers: Timers,
        sending: Sending,
        calls: Mapping[str, Call],
        *,
        owner: str,
        listener: Listener | None = None,
        on_news: Callable[[Call], None] = lambda _: None,
    ) -> None:
        self.dropped: Counter[str] = Counter()
        """Number of heartbeats that were dropped, by reason."""
        self._bus = bus
        self._timers = timers
        self._sending = sending
        self._calls = calls
        self._subject = beat_interest(owner)
        self._listener = listener
        self._on_news = on_news
        self._clock = trio.current_time
        self._anew = 0.0
        """Time of the last connection, by `Timers.now`: all connectors have their whole time again then."""
        self._silent: dict[Call, None] = {}
        """Attempts whose time without a heartbeat is over, to be judged."""
        self._wake = trio.Event()
        self._subscription: Subscription | None = None
        self._log = RateLimitedLog()

    async def listen(self) -> None:
        """Subscribe to heartbeats. Where the broker does not permit that, their absence fails nothing."""
        try:
            self._subscription = await self._bus.subscribe(self._subject, self.take)
        except NotPermitted as error:
            self._sending.deaf = True
            _log.warning(
                "heartbeats of connectors are not heard, and their absence fails nothing",
                reason=str(error),
                cure=f'let it subscribe to "{EVERY_BEAT}" (see `scheduler permissions`)',
            )
            return
        if self._listener is not None:
            self._listener.listen(self._subject, self.take)
        self._bus.on_connected(self._begin_anew)

    def take(self, message: Message) -> None:
        """Take a heartbeat."""
        call = self._calls.get(message.subject[BEAT_ADDRESS])
        if call is None or call.closed or call.answered:
            # It may have been on its way when the reply came, or belong to an attempt that was given up.
            self.dropped["for no attempt in flight"] += 1
            return
        pulses = self._sending.pulses
        pulse = pulses.get(call)
        if pulse is None:
            pulse = pulses[call] = Pulse()
        known = pulse.heard
        if not pulse.beat(self._clock()):
            self.dropped["more than ten a second"] += 1
        elif message.data:
            try:
                new = pulse.take(read_beat(message.data))
            except InvalidJSON as error:
                pulse.heard = known
                self._drop_malformed(call, message, error)
                return
            if new:
                self._on_news(call)
        if pulse.within:
            pulse.since = self._timers.now()
            if pulse.lost:
                # It was late, and is not lost.
                self.watch(call)

    def _drop_malformed(self, call: Call, message: Message, error: InvalidJSON) -> None:
        self.dropped["malformed"] += 1
        text = "heartbeat dropped: it cannot be read"
        if not self._log.leaves_out(text):
            request = call.request
            self._log.warning(
                text,
                reason=str(error)[:200],
                subject=message.subject.rpartition(".")[0],
                build=request.build,
                component=request.component,
                dropped_so_far=self.dropped["malformed"],
            )

    # ---- the absence of heartbeats

    def watch(self, call: Call) -> None:
        """Count the time without a heartbeat from now on, where the request asks for them. Idempotent."""
        within = self._sending.heartbeat(call.request)
        if within is None or not _is_heard(call):
            return
        pulses = self._sending.pulses
        pulse = pulses.get(call)
        if pulse is None:
            pulse = pulses[call] = Pulse()
        if pulse.lost:
            # It was about to fail for that, and has the rest of its time now.
            self._sending.go_on(call)
        pulse.within, pulse.lost, pulse.since = within, False, self._timers.now()
        if pulse.timer is None or pulse.timer.cancelled:
            pulse.timer = self._timers.start(within, self._look, call)

    def _begin_anew(self) -> None:
        self._anew = self._timers.now()

    def _look(self, call: Call) -> None:
        """Look at an attempt when its time may be over; heartbeats do not move its timer."""
        pulse = self._sending.pulses.get(call)
        if pulse is None or call.closed or call.answered or pulse.lost:
            return
        left = self._left(call, pulse)
        if left > _GRAIN:
            if pulse.timer is None or pulse.timer.cancelled:
                # Otherwise `watch` has started it while the attempt was judged.
                pulse.timer = self._timers.start(left, self._look, call)
        else:
            self._silent[call] = None
            self._wake.set()

    def _left(self, call: Call, pulse: Pulse) -> float:
        return pulse.ends(self._anew, unheard=call.unheard_of) - self._timers.now()

    async def run(self) -> NoReturn:
        """Judge attempts whose time without a heartbeat is over; never returns."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            await self._judge_all()

    async def _judge_all(self) -> None:
        # In a function of its own, so that no call is kept alive while there is nothing to do.
        silent, self._silent = self._silent, {}
        # What leaves only now, behind others, has all of its time before it.
        late = {call for call in silent if not call.may_have_left}
        answered = False
        with trio.move_on_after(_ANSWER):
            try:
                await self._bus.flush()
                answered = True
            except BusError as error:
                _log.debug("the broker does not answer", reason=str(error))
        async for call in paced(silent, every=_AT_ONCE):
            self._judge(call, may_judge=answered and call not in late)

    def _judge(self, call: Call, *, may_judge: bool) -> None:
        """Take the connector of an attempt for lost, unless there is news, or a reason for its silence."""
        pulse = self._sending.pulses.get(call)
        if pulse is None or call.closed or call.answered or pulse.lost:
            return
        if not (may_judge and self._bus.connected and call.may_have_left):
            pulse.since = self._timers.now()
        if self._left(call, pulse) > _GRAIN:
            self._look(call)
        else:
            pulse.lost = True
            self._sending.lose(call)


def _is_heard(call: Call) -> bool:
    """Return whether the heartbeats for a request would come in here."""
    if call.outgoing is not None or not call.maybe_out:
        # This process has sent it, or is about to.
        return True
    inherited = call.inherited
    return inherited is not None and any(subject.startswith(BEAT) for subject in inherited.heard)
