"""Sends components to whatever connector listens, and brings their replies back to whoever waits.

A reply comes on ``<request subject>.done`` or ``.error``, where it is matched by build and component, or on
the request's own reply subject (`scheduler.definition.reply_subjects`), where that alone matches it. The
first one counts. What comes late, twice or from elsewhere is counted, logged and dropped; it never reaches a
build (WIRE: "Requests and replies").
"""

import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from typing import TypeAlias

import structlog
from attrs import field, frozen

from scheduler.bus import Bus, Handler, Listener, Message, Subscription
from scheduler.definition.limits import DEFAULT_LIMITS, Limits
from scheduler.definition.reply_subjects import (
    ADDRESS,
    OLD,
    REPLY,
    Tokens,
    draw_key,
    interest,
    owner_of,
    parse,
)
from scheduler.definition.subjects import REPLY_SUBJECTS
from scheduler.dispatch.call import Call, Inherited, Signal
from scheduler.dispatch.doubles import Doubles
from scheduler.dispatch.duplicates import DuplicateFilter, Way
from scheduler.dispatch.fairness import FairDispatcher
from scheduler.dispatch.hearing import Hearing
from scheduler.dispatch.positions import ReplyPositions
from scheduler.dispatch.reply_reader import READ_HERE, LargeReply, ReplyReader
from scheduler.dispatch.timers import Timers
from scheduler.errors import InvalidJSON, OverLimit
from scheduler.journal.records import Position
from scheduler.plan import Request
from scheduler.plan.outcome import failure, read_head
from scheduler.runtime.executor import Executor, ThreadExecutor
from scheduler.runtime.ratelimit import RateLimitedLog

_log = structlog.get_logger()

_DROPPED = "reply dropped"
_MOST_COPIES = 10_000
_MOST_UNCAPTURED = 100
"""Providers whose replies are not captured that are told of; builds choose them."""


Timeouts: TypeAlias = Callable[[str], float]
"""Seconds that an attempt may take, by the subject of its request."""


@frozen
class Stray:
    """A reply for a component that nobody here waits for."""

    build: str
    component: str
    message: Message = field(repr=False)


class Connectors:
    """The waiter table: everything in flight, over all builds of this process.

    Args:
        bus: what requests go out on and replies come in on.
        timers: deadlines; `Timers.run` has to be running.
        timeouts: seconds an attempt may take, by request subject; a component's own ``_timeout`` wins.
        start_timeout: seconds for which a request that nobody listens to is tried again.
        limits: on the JSON of replies.
        listener: a second connection that replies come in on, too.
        instance: names this process; unlike any other's.
        shared: what replies on the subjects come in on that all connectors share; ``bus`` where it is None.
            Of these anybody may publish as many as he likes, and large ones: they are not to stand in the way
            of those on a request's own reply subject.
        executor: reads large replies.
    """

    def __init__(
        self,
        bus: Bus,
        timers: Timers,
        *,
        timeouts: Timeouts = lambda _: 3_600.0,
        start_timeout: float = 10.0,
        limits: Limits = DEFAULT_LIMITS,
        listener: Listener | None = None,
        instance: str = "",
        shared: Bus | None = None,
        executor: Executor | None = None,
    ) -> None:
        self.bus = bus
        self.timers = timers
        self.start_timeout = start_timeout
        self.dropped: Counter[str] = Counter()
        """What was dropped, by reason."""
        self.on_stray: Callable[[Stray], None] | None = None
        """Is told of replies for builds that this process does not hold."""
        self.on_expired: Callable[[Call], None] | None = None
        """Is told of attempts whose time is over, instead of their being timed out at once: where replies are
        captured, one of them may be there and not have reached us yet."""
        self.captures: Callable[[Request], bool] = lambda _: False
        """Whether replies to such a request are captured, so that one is kept that nobody hears."""
        self.capture_providers: frozenset[str] = frozenset()
        """The providers whose replies are captured, where that is so of some only."""
        self._uncaptured: set[str] = set()
        """Of the others those that were told of in the log."""
        self._deaf = {True: 0, False: 0}
        """The last connection before which replies may have been missed, captured or not; 0: none."""
        self._connection = bus.generation
        self._listener = listener
        self._timeouts = timeouts
        self._by_token: dict[str, Call] = {}
        """By the `ADDRESS` of their reply subjects: whoever of us sent the request, it is the same."""
        self._by_component: dict[tuple[str, str], Call] = {}
        self.dispatcher = FairDispatcher()
        """Shares the work on replies between builds; `FairDispatcher.run` has to be running."""
        self.reader = ReplyReader(bus, self.dispatcher, limits, executor or ThreadExecutor())
        self._owner = owner_of(instance or secrets.token_hex(16))
        self.replies = f"{REPLY}{self._owner}."
        """What the reply subjects of this process begin with, before the provider."""
        self._tokens = Tokens(draw_key())
        """Of requests whose build has no key of its own."""
        self._number = 0
        self._log = RateLimitedLog()
        self.shared = bus if shared is None else shared
        """What replies come in on that are not on the reply subject of a request."""
        self._doubles = None if listener is None else Doubles(lambda: bus.connected, listener)
        self.hearing = Hearing(bus, self._doubles, self._on_reply)
        """Whoever is heard beside us; `Hearing.run` has to be running."""
        self._by_old_token: dict[str, Call] = {}
        self._inherited: dict[Call, Inherited] = {}
        self._subscriptions: list[Subscription] = []
        self._copies: OrderedDict[Hashable, None] = OrderedDict()
        """Whose answers were read from the stream, and may still come directly."""
        self._waiting: set[tuple[Call, str | None, bytes]] = set()
        """Small replies that came directly and wait for their turn."""
        self._duplicates = DuplicateFilter()
        """Failures that ended an attempt, and may still come on the other way."""
        self.positions = ReplyPositions()
        """How far the replies that a stream captured were dealt with, where one does."""

    async def listen(self) -> None:
        """Subscribe to replies; to be done before anything is sent."""
        ours = interest(self._owner)
        handler: Handler = self._on_reply
        if self._doubles is not None:
            handler = self._doubles.listen(ours, handler)
        self._subscriptions.append(await self.bus.subscribe(ours, handler))
        bus, shared = self.bus, self.shared
        apart = shared is not bus
        doubles = None
        if self._listener is not None:
            doubles = Doubles(lambda: shared.connected or bus.connected, self._listener)
        # A queue group without another member: so another connection can stand in, and none comes twice.
        group = f"scheduler.{self._owner}" if apart else ""
        for subject in REPLY_SUBJECTS:
            handler = self._on_verb if doubles is None else doubles.listen(subject, self._on_verb)
            self._subscriptions.append(await shared.subscribe(subject, handler, queue=group))
        bus.on_refused(self._on_refused)
        bus.on_connected(self._on_connected)
        if apart:
            shared.on_connected(self._on_shared_connected)

    def send(
        self, request: Request, token: str = "", departing: Callable[[Call], None] | None = None
    ) -> Call:
        """Publish a request, in this very breath, and register who waits for its reply.

        Args:
            request: what is to be sent.
            token: what its reply subject ends with; one of this process where it is empty.
            departing: is told each time that it is handed to the bus.
        """
        call = self.expect(request, token, self.positions.seen)
        call.maybe_out = call.uncaptured = False
        call.departing = departing
        try:
            self.arm(call)
            call.publish()
        except BaseException:
            call.close()
            raise
        return call

    async def hear(self, instances: Iterable[str], *, old: bool = False) -> tuple[str, ...]:
        """Hear the replies to what other processes have sent as well.

        Args:
            instances: their names, the most important one first.
            old: whether one of them was of a version whose reply subjects had no owner.

        Returns:
            What is heard for that: to be handed on in `Inherited.heard`, and to be released.

        Raises:
            BusError: the broker does not let us subscribe, or cannot be asked.
        """
        owners = [owner_of(instance) for instance in instances]
        subjects = [interest(owner) for owner in owners if owner != self._owner]
        return await self.hearing.hear([OLD, *subjects] if old else subjects)

    def expect(
        self,
        request: Request,
        token: str = "",
        after: Position | None = None,
        inherited: Inherited | None = None,
    ) -> Call:
        """Register who waits for the reply to a request that an earlier process sent; `arm` starts its clock.

        Args:
            request: what was sent.
            token: what its reply subject ends with, where that is known.
            after: captured replies up to here are none to it.
            inherited: how else its reply may come.
        """
        if not token:
            self._number += 1
            token = self._tokens.of(str(self._number))
        call = Call(self, request, token)
        call.since = self._connection
        if after is not None:
            call.after = after
        call.maybe_out = True
        if self.capture_providers and request.provider not in self.capture_providers:
            call.uncaptured = True
            self._note_uncaptured(request)
        self._by_token[call.reply[ADDRESS]] = call
        self._by_component[request.build, request.component] = call
        if inherited is not None:
            self._inherited[call] = inherited
            self.hearing.hold(inherited.heard)
            if inherited.old:
                self._by_old_token[inherited.old] = call
        return call

    def deaf(self, request: Request) -> int:
        """The last connection of the bus before which a reply to it may have been missed; 0: none."""
        return self._deaf[self.captures(request)]

    def _note_uncaptured(self, request: Request) -> None:
        if request.provider not in self._uncaptured and len(self._uncaptured) < _MOST_UNCAPTURED:
            self._uncaptured.add(request.provider)
            _log.warning(
                "replies of this provider are not captured: one that comes while no scheduler runs is lost",
                provider=request.provider,
                request=request.subject,
                cure="name it in --capture-providers",
            )

    def seconds(self, request: Request) -> float:
        """How long an attempt may take."""
        return request.timeout or self._timeouts(request.subject)

    def arm(self, call: Call, seconds: float | None = None) -> None:
        """Start the clock of an attempt: all of its time, or ``seconds``."""
        whole = self.seconds(call.request) + call.extended
        call.timer = self.timers.start(whole if seconds is None else seconds, call.expire)

    def extend(self, call: Call, seconds: float) -> None:
        """Give an attempt more time, whether or not its clock runs yet."""
        call.extended += seconds
        if call.timer is not None:
            left = max(0.0, call.timer.due - self.timers.now())
            self.timers.cancel(call.timer)
            self.arm(call, left + seconds)

    def close(self, call: Call) -> None:
        """Forget a call, or keep it for what comes late."""
        if call.timer is not None:
            self.timers.cancel(call.timer)
        for place in call.held:
            self.positions.release(call.request.build, *place)
        call.held.clear()
        if call.late is None:
            self._by_token.pop(call.reply[ADDRESS], None)
            key = (call.request.build, call.request.component)
            if self._inherited and (inherited := self._inherited.pop(call, None)) is not None:
                self._by_old_token.pop(inherited.old, None)
                self.hearing.release(inherited.heard)
            if call.by_capture is not None:
                self._copies[call.by_capture] = None
                if len(self._copies) > _MOST_COPIES:
                    self._copies.popitem(last=False)
            if self._by_component.get(key) is call:
                del self._by_component[key]

    def hand_over(self, build: str) -> None:
        """No more replies for ``build`` are dealt with here: what comes is left to the next process."""
        self.positions.freeze(build)

    def count(self, reason: str, subject: str = "", **context: str) -> None:
        """Count something that was dropped; logged, but not more than once a second."""
        self.dropped[reason] += 1
        # It may be all that a flood of messages comes to, each of them.
        if not self._log.leaves_out(_DROPPED):
            total = self.dropped.total()
            self._log.warning(_DROPPED, reason=reason, subject=subject, dropped_so_far=total, **context)

    def _on_reply(self, message: Message) -> None:
        call = self._call_of(message.subject)
        if call is None:
            if not message.subject.startswith(self.replies) or message.no_responders:
                # To another process, say: it is none of our business any more.
                return
            address = message.subject[ADDRESS]
            if address in self._copies:
                del self._copies[address]
            else:
                self.count("to no request that waits", message.subject)
            return
        if message.no_responders:
            call.deliver(Signal.NOBODY)
            return
        self._take_direct(call, message, None)

    def _call_of(self, subject: str) -> Call | None:
        """Whose reply subject this is, of all that are waited for."""
        # What a connector of another provider may publish on is none of its reply subjects.
        call = self._by_token.get(subject[ADDRESS])
        if call is None and self._by_old_token:
            address = parse(subject)
            return None if address is None or address.owner else self._by_old_token.get(address.token)
        return call

    def _on_verb(self, message: Message) -> None:
        subject, _, suffix = message.subject.rpartition(".")
        type_ = subject.partition(".")[0]
        if type_ in {"build", "service", "environment", "scheduler"}:
            return  # a report, not a reply
        head = self._head(message)
        if head is None:
            return
        build, component = head
        duplicates = self._duplicates
        if duplicates and duplicates.take(Way.DIRECT, build, component, message.subject, message.data):
            return
        call = self._by_component.get((build, component))
        if call is None:
            if (build, component) in self._copies:
                del self._copies[build, component]
            elif self.on_stray is not None:
                self.on_stray(Stray(build, component, message))
            else:
                self.count("for no running component", message.subject, build=build[:128])
        elif call.request.subject != subject:
            self.count("of another type, provider or action", message.subject, build=build[:128])
        else:
            self._take_direct(call, message, suffix)

    def _take_direct(self, call: Call, message: Message, suffix: str | None) -> None:
        if not self._is_repeated(call, message, suffix):
            waits = self.reader.in_turn(call, message, suffix, partial(self._deliver, call, message, suffix))
            if waits and not message.headers and len(message.data) <= READ_HERE:
                self._waiting.add((call, suffix, message.data))

    def _is_repeated(self, call: Call, message: Message, suffix: str | None) -> bool:
        """Whether a reply that came directly changes nothing, as can be said before it has its turn.

        There is an answer already, or the same reply waits for its turn: one that is no good is none the
        second time either.
        """
        if call.late is not None:
            return False
        if call.answered:
            if call.by_capture is not None:
                call.by_capture = None
                return True
        else:
            comparable = self._waiting and not message.headers and len(message.data) <= READ_HERE
            if not comparable or (call, suffix, message.data) not in self._waiting:
                return False
        self.count("duplicate", message.subject, build=call.request.build, component=call.request.component)
        return True

    def on_captured(self, message: Message, place: Position, provider: str = "") -> None:
        """Look at the next reply that a stream captured, at ``place``."""
        self.look_at_captured(message, place, self.positions.seen.of(provider), provider)
        self.positions.see(place, provider)

    def look_at_captured(
        self, message: Message, place: Position, before: Position, provider: str = ""
    ) -> None:
        """Look at a reply that a stream captured at ``place``, next after ``before``.

        It may have reached us before, or never. The stream is that of all replies, or of one provider's.

        What is of no use is not counted here: it is, where it comes in directly.
        """
        suffix: str | None = None
        if message.subject.startswith(REPLY):
            call = self._call_of(message.subject)
        else:
            subject, _, suffix = message.subject.rpartition(".")
            try:
                head = read_head(message.data)
            except InvalidJSON:
                head = None
            call = None if head is None else self._by_component.get(head)
            if call is not None and call.request.subject != subject:
                call = None
        # Both: clocks may be set back, and a stream that lost its end gives its numbers out again.
        if call is None:
            return
        after = call.after.of(provider)
        if place.sequence > after.sequence or place.time > after.time:
            build = call.request.build
            if suffix is not None and self._is_echo(call, message):
                return
            self.positions.hold(build, place.sequence, before, provider)
            at = place.sequence, provider
            if call.closed or not call.answered:
                job = partial(self._deliver_captured, call, message, suffix, at)
                self.reader.in_turn(call, message, suffix, job)
            else:
                call.held.append(at)

    def _is_echo(self, call: Call, message: Message) -> bool:
        """Whether a captured reply has ended an earlier attempt of the component that ``call`` is one of."""
        request = call.request
        if not self._duplicates:
            return False
        echo = self._duplicates.take(
            Way.CAPTURED, request.build, request.component, message.subject, message.data
        )
        # While the attempt that it ended is not booked yet, it holds the position as any reply does.
        return echo and (call.closed or not call.answered)

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
                call.by_capture = self._copy_of(call, suffix)
        finally:
            if call.closed or not call.answered:
                self.positions.release(call.request.build, *at)
            else:
                call.held.append(at)

    @staticmethod
    def _copy_of(call: Call, suffix: str | None) -> Hashable | None:
        """By what the other copy is known of the reply that has answered a call; None where none has."""
        if not call.answered:
            return None
        return call.reply[ADDRESS] if suffix is None else (call.request.build, call.request.component)

    def take(self, message: Message) -> None:
        """Look at a reply that somebody else has heard directly."""
        if message.subject.startswith(REPLY):
            self._on_reply(message)
        else:
            self._on_verb(message)

    def redeliver(self, stray: Stray) -> bool:
        """Look at a stray again, now that its build may be held; False where nobody waits for it."""
        if (stray.build, stray.component) not in self._by_component:
            return False
        self._on_verb(stray.message)
        return True

    def _head(self, message: Message) -> tuple[str, str] | None:
        try:
            head = read_head(message.data)
        except InvalidJSON:
            self.count("not a component", message.subject)
            return None
        if head is None:
            self.count("without service or _component_id", message.subject)
        return head

    def _deliver(
        self,
        call: Call,
        message: Message,
        suffix: str | None,
        way: Way = Way.DIRECT,
        *,
        large: LargeReply | None = None,
    ) -> None:
        request = call.request
        if self._waiting:
            self._waiting.discard((call, suffix, message.data))
        try:
            outcome = self.reader.read(request, message, suffix, large)
        except InvalidJSON as error:
            # Somebody's noise is dropped; a reply that we may not take is one all the same, and waiting on
            # would not bring a better one.
            if suffix is not None and not isinstance(error, OverLimit):
                self.count("not a component", message.subject, build=request.build, error=str(error))
                return
            outcome = failure(f"the reply cannot be read: {error}")
        if call.late is not None:
            call.late(request, outcome)
            self.count("late", message.subject, build=request.build, component=request.component)
        elif call.deliver(outcome):
            self.reader.took(request.build, message)
            if suffix is not None and not outcome.completed:
                other = Way.CAPTURED if way is Way.DIRECT else Way.DIRECT
                build, component = request.build, request.component
                self._duplicates.expect(other, build, component, message.subject, message.data)
        elif call.by_capture is not None:
            call.by_capture = None
        else:
            self.count("duplicate", message.subject, build=request.build, component=request.component)

    def _on_connected(self) -> None:
        self._connection = self.bus.generation
        for captured in self._deaf:
            if self._listener is not None and self._listener.missed(captured=captured):
                self._deaf[captured] = self._connection

    def _on_shared_connected(self) -> None:
        """What came on shared subjects meanwhile is lost, where no stream and no second connection has it."""
        if self._listener is None or not self._listener.connected:
            self._deaf[False] = self._connection + 1

    def _on_refused(self, subject: str) -> None:
        calls = [
            (call, call.outgoing)
            for call in self._by_token.values()
            if call.request.subject == subject and call.outgoing is not None and not call.answered
        ]
        too_large = [(call, outgoing.refused) for call, outgoing in calls if outgoing.refused is not None]
        for call, error in too_large:
            call.deliver(failure(f"the request cannot be sent: {error}", retryable=False))
        if not too_large:
            for call, _ in calls:
                text = f"the broker does not permit us to publish on {subject}"
                call.deliver(failure(text, retryable=False))
