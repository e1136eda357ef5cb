"""Sends requests to connectors, and brings their replies back to the walks that wait.

This module puts the parts together: `sending` publishes a request, `router` tells which call a reply is
meant for, `receiving` delivers it, `positions` keeps how far captured replies were dealt with. One file on
purpose: it is a list of these parts, and of what the rest of the package may do with them.
"""

import secrets
from collections.abc import Callable, Iterable

from attrs import frozen

from scheduler.bus import Bus, Listener, Message, Subscription
from scheduler.definition.limits import DEFAULT_LIMITS, Limits
from scheduler.definition.reply_subjects import (
    BEAT,
    OLD,
    REPLY,
    Tokens,
    beat_interest,
    draw_key,
    interest,
    owner_of,
)
from scheduler.definition.subjects import REPLY_SUBJECTS
from scheduler.dispatch.beats import Beats
from scheduler.dispatch.call import Call
from scheduler.dispatch.cancelling import Cancelling
from scheduler.dispatch.dropped import DroppedReplies
from scheduler.dispatch.fairness import FairDispatcher
from scheduler.dispatch.gaps import Gaps
from scheduler.dispatch.hearing import Hearing
from scheduler.dispatch.inherited import Inherited
from scheduler.dispatch.receiving import Receiving
from scheduler.dispatch.reply_reader import ReplyReader
from scheduler.dispatch.returned import Returned
from scheduler.dispatch.router import Router, Stray
from scheduler.dispatch.second_copies import SecondCopies
from scheduler.dispatch.senders import UNKNOWN
from scheduler.dispatch.sending import Heartbeats, Sending, Timeouts
from scheduler.dispatch.tenure import Tenure
from scheduler.dispatch.timers import Timers
from scheduler.jetstream.capturing import StreamLayout
from scheduler.journal.records import Position
from scheduler.plan import Request
from scheduler.runtime.executor import Executor, ThreadExecutor
from scheduler.stores.positions import ReplyPositions


@frozen
class Capture:
    """Capture of replies by streams, so that a reply is kept which no process hears."""

    layout: StreamLayout
    """Replies that are captured."""
    positions: ReplyPositions
    """Positions up to which they have been handled."""
    on_expired: Callable[[Call], None]
    """Callback for attempts whose time has passed, in place of timing them out at once: a captured reply may
    be there and not have reached us yet."""


class ConnectorClient:
    """Everything in flight, over all builds of this process.

    Args:
        bus: connection on which requests go out and replies come in.
        timers: deadlines; `Timers.run` has to be running.
        timeouts: seconds that an attempt may take, by request subject; a component's own ``_timeout`` wins.
        heartbeats: seconds within which a connector has to beat again, by request subject; a component's own
            ``_heartbeat`` wins; None: no subject asks for that.
        start_timeout: seconds for which a request that nobody listens to is tried again.
        limits: bounds on the JSON of replies.
        listener: second connection that replies come in on, too.
        instance: unique name of this process.
        shared: connection on which replies on shared subjects come in; ``bus`` where it is None. Of these
            anybody may publish many, and large ones, which must not delay replies on a request's own reply
            subject.
        executor: reads large replies.
        capture: how streams capture replies; None: they do not.
        on_stray: callback for replies for builds that this process does not hold; it returns whether it keeps
            them. What it does not keep is counted.
        shares: returns whether other instances work on the same shared subjects, as in `Router`.
        sender_of: tells the sender of the build of an id.
        on_beat: callback for calls whose connector has said something new in a heartbeat.
        tenure: right of this process to send requests; None where nothing takes it away.
    """

    def __init__(
        self,
        bus: Bus,
        timers: Timers,
        *,
        timeouts: Timeouts = lambda _: 3_600.0,
        heartbeats: Heartbeats | None = None,
        start_timeout: float = 10.0,
        limits: Limits = DEFAULT_LIMITS,
        listener: Listener | None = None,
        instance: str = "",
        shared: Bus | None = None,
        executor: Executor | None = None,
        capture: Capture | None = None,
        on_stray: Callable[[Stray], bool] = lambda _: False,
        shares: Callable[[], bool] = lambda: False,
        sender_of: Callable[[str], str] = lambda _: UNKNOWN,
        on_beat: Callable[[Call], None] = lambda _: None,
        tenure: Tenure | None = None,
    ) -> None:
        self.timers = timers
        self.shared = bus if shared is None else shared
        """Connection on which replies on shared subjects come in."""
        self._bus = bus
        self._listener = listener
        self.owner = owner_of(instance or secrets.token_hex(16))
        """Name of this process in reply subjects."""
        self.replies = f"{REPLY}{self.owner}."
        """Prefix of the reply subjects of this process, before the provider."""
        self._tokens = Tokens(draw_key())
        """Tokens of requests whose build has no key of its own."""
        self._number = 0
        self._subscriptions: list[Subscription] = []
        dropped = DroppedReplies()
        self.count = dropped.count
        """Counts a reply that was dropped, by reason."""
        self.dropped = dropped.counts
        """Number of replies that were dropped, by reason."""
        self.dispatcher = FairDispatcher(sender_of)
        """Shares the work on replies between builds; `FairDispatcher.run` has to be running."""
        self.reader = ReplyReader(bus, self.dispatcher, limits, executor or ThreadExecutor())
        self.positions = ReplyPositions() if capture is None else capture.positions
        """Positions up to which the captured replies have been handled."""
        self.gaps = Gaps(bus, self.shared, listener, None if capture is None else capture.layout)
        """Times in which a reply may have been missed, and which replies are captured."""
        self.router = Router(self.replies, dropped, on_stray, shares)
        """Table of the calls in flight."""
        self.receiving = Receiving(self.router, self.reader, self.positions)
        """Takes in replies."""
        self.cancelling = Cancelling(bus)
        """Tells connectors which attempts are given up; `Cancelling.run` has to be running."""
        self.sending = Sending(
            bus,
            timers,
            self.dispatcher,
            replies=self.replies,
            gaps=self.gaps,
            dropped=dropped,
            timeouts=timeouts,
            heartbeats=heartbeats,
            start_timeout=start_timeout,
            cancelling=self.cancelling,
            forget=self._forget,
            on_expired=None if capture is None else capture.on_expired,
            tenure=tenure,
        )
        """Publishes requests, and times attempts out."""
        if tenure is not None:
            # While the connection was away, another process may have found this one gone.
            bus.on_connected(self.hold_back)
        self.beats = Beats(
            bus,
            timers,
            self.sending,
            self.router.by_token,
            owner=self.owner,
            listener=listener,
            on_news=on_beat,
        )
        """Heartbeats of connectors; `Beats.run` has to be running."""
        self.returned = Returned(bus, self.router.by_component, self._send_again)
        """Answers connectors that come back; `Returned.run` has to be running."""
        self._doubles = None if listener is None else SecondCopies(lambda: bus.connected, listener)
        self.hearing = Hearing(bus, self._doubles, self.receiving.take, self.beats.take)
        """Subjects of earlier processes; `Hearing.run` has to be running."""

    async def listen(self) -> None:
        """Subscribe to what connectors say; to be done before anything is sent."""
        ours, take = interest(self.owner), self.receiving.take
        handler = take if self._doubles is None else self._doubles.listen(ours, take)
        self._subscriptions.append(await self._bus.subscribe(ours, handler))
        bus, shared = self._bus, self.shared
        doubles = None
        if self._listener is not None:
            doubles = SecondCopies(lambda: shared.connected or bus.connected, self._listener)
        # A queue group without another member: so another connection can stand in, and none comes twice.
        group = "" if shared is bus else f"scheduler.{self.owner}"
        for subject in REPLY_SUBJECTS:
            handler = take if doubles is None else doubles.listen(subject, take)
            self._subscriptions.append(await shared.subscribe(subject, handler, queue=group))
        bus.on_refused(self._on_refused)
        self.gaps.watch()
        await self.beats.listen()
        await self.returned.listen()

    async def hear(self, instances: Iterable[str], *, old: bool = False) -> tuple[str, ...]:
        """Hear the replies to what other processes have sent as well, and the heartbeats for that.

        Args:
            instances: names of these processes, the most important one first.
            old: whether one of them was of a version whose reply subjects had no owner.

        Returns:
            The subjects that are heard for that: to be handed on in `Inherited.heard`, and to be released.

        Raises:
            BusError: the broker does not let us subscribe, or cannot be asked.
        """
        owners = [owner for instance in instances if (owner := owner_of(instance)) != self.owner]
        subjects = [interest(owner) for owner in owners]
        if not self.sending.deaf:
            subjects += map(beat_interest, owners)
        heard = await self.hearing.hear([OLD, *subjects] if old else subjects)
        beats = [subject for subject in heard if subject.startswith(BEAT)]
        if len(beats) < len(owners):
            # Which of the processes has sent a request is not known: the absence of heartbeats says nothing.
            self.hearing.release(beats)
            heard = tuple(subject for subject in heard if not subject.startswith(BEAT))
        return heard

    def send(
        self, request: Request, token: str = "", departing: Callable[[Call], None] | None = None
    ) -> Call:
        """Publish a request and register the wait for its reply; synchronous.

        Args:
            request: the request.
            token: last word of its reply subject; one of this process where it is empty.
            departing: callback for each time that it is handed to the bus.
        """
        call = self._call(request, token)
        self.gaps.leaves_out(request)
        call.after = self.positions.seen
        call.departing = departing
        self.router.add(call)
        try:
            self.sending.arm(call)
            if request.heartbeat is not None or self.sending.asking:
                self.beats.watch(call)
            self.sending.publish(call)
        except BaseException:
            call.close()
            raise
        return call

    def expect(
        self,
        request: Request,
        token: str = "",
        after: Position | None = None,
        inherited: Inherited | None = None,
    ) -> Call:
        """Register the wait for the reply to a request of an earlier process; `arm` starts its clock.

        Args:
            request: the request.
            token: last word of its reply subject, where that is known.
            after: position up to which captured replies are none to it.
            inherited: further ways for its reply.
        """
        call = self._call(request, token)
        call.maybe_out = True
        call.uncaptured = self.gaps.leaves_out(request)
        if after is not None:
            call.after = after
        if inherited is not None:
            call.inherited = inherited
            self.hearing.hold(inherited.heard)
        self.router.add(call)
        return call

    def _send_again(self, call: Call) -> bool:
        """Send a request again to a connector that came back, and start its clocks; return whether so."""
        if not self.sending.publish_again(call):
            return False
        if call.timer is None:
            # It was held back until then, as its build is paused.
            self.arm(call)
        else:
            self.beats.watch(call)
        return True

    def _call(self, request: Request, token: str) -> Call:
        if not token:
            self._number += 1
            token = self._tokens.of(str(self._number))
        return Call(self.sending, request, token, self.gaps.connection)

    def _forget(self, call: Call) -> None:
        """Forget a call, or keep it for late replies."""
        if call.held:
            for place in call.held:
                self.positions.release(call.request.build, *place)
            call.held.clear()
        if call.late is None:
            self.router.remove(call)
            if call.inherited is not None:
                self.hearing.release(call.inherited.heard)
                call.inherited = None

    def seconds(self, request: Request) -> float:
        """Return the seconds that an attempt may take."""
        return self.sending.seconds(request)

    def arm(self, call: Call, seconds: float | None = None) -> None:
        """Start the clock of an attempt: all of its time, or ``seconds``; and that of its heartbeats."""
        self.sending.arm(call, seconds)
        self.beats.watch(call)

    def extend(self, call: Call, seconds: float) -> None:
        """Give an attempt more time, whether or not its clock runs yet."""
        self.sending.extend(call, seconds)
        if call.timer is not None:
            self.beats.watch(call)

    def give_up(self, call: Call, reason: str) -> None:
        """Tell connectors that nobody awaits the reply to a request any more; nothing waits for that."""
        self.sending.give_up(call, reason)

    def hold_back(self) -> None:
        """Hold back all requests that have not left, until their builds are confirmed. Synchronous."""
        self.sending.hold_back(self.router.by_token.values())

    def hand_over(self, build: str) -> None:
        """Leave the replies for ``build`` that come from now on to the next process."""
        self.positions.freeze(build)

    def forget_build(self, build: str) -> None:
        """Forget everything about a build that is not held here any more. Idempotent."""
        self.positions.forget(build)
        self.reader.forget(build)

    def drop(self, stray: Stray) -> None:
        """Drop a stray that is of no use, and count it."""
        self.router.drop_stray(stray)

    def take(self, message: Message) -> None:
        """Take a reply that was heard directly elsewhere."""
        self.receiving.take(message)

    def redeliver(self, stray: Stray) -> bool:
        """Take a stray again, now that its build may be held; False where no call is for it."""
        return self.receiving.redeliver(stray)

    def on_captured(self, message: Message, place: Position, provider: str = "") -> None:
        """Take the next reply that a stream captured, at ``place``."""
        positions = self.positions
        seen = positions.seen
        self.receiving.take_captured(message, place, seen.of(provider) if seen.others else seen, provider)
        positions.see(place, provider)

    def look_at_captured(
        self, message: Message, place: Position, before: Position, provider: str = ""
    ) -> None:
        """Take a reply that a stream captured at ``place``, next after ``before``, read once more."""
        self.receiving.take_captured(message, place, before, provider)

    def _on_refused(self, subject: str) -> None:
        self.sending.refuse(subject, self.router.by_token.values())
