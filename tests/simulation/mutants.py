"""Deliberate faults of the package, each made by changing it in memory: the checker has to catch every one.

A checker that finds nothing proves nothing until it is known what it finds. The module is a list of short
faults, and therefore longer than others.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import trio
from attrs import evolve
from msgspec.structs import replace

import scheduler.dispatch.sending
import scheduler.plan.plan
import scheduler.plan.requests
import scheduler.stores.appender
import scheduler.supervision.reader
from scheduler.bus import Bus, Message
from scheduler.config import Settings
from scheduler.definition.model import Action, Resend
from scheduler.definition.reply_subjects import BEAT_ADDRESS
from scheduler.definition.rules import Retry
from scheduler.definition.template import Rendered, Scope, Template, Work
from scheduler.definition.validation import Prepared, read_build
from scheduler.dispatch.beats import Beats
from scheduler.dispatch.call import Call
from scheduler.dispatch.client import ConnectorClient
from scheduler.dispatch.returned import Returned
from scheduler.dispatch.slots import Slots
from scheduler.dispatch.timers import Timers
from scheduler.errors import BusError, Fenced, TemplateError, WrongLastSequence
from scheduler.jetstream.answers import Ack
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.streams import report_subject
from scheduler.journal.events import Accepted, Cancelled, Event, Paused, Sent, Settled, Supplied, Withdrawn
from scheduler.journal.history import History
from scheduler.journal.orders import Order
from scheduler.journal.records import Position, encode_event, first_headers
from scheduler.limiter.byte_budget import ByteBudget
from scheduler.plan import Phase, Plan, Request, steering
from scheduler.plan.attempts import Again, AttemptCounts
from scheduler.plan.gates import expire
from scheduler.plan.outcome import Outcome, failure, read_reply
from scheduler.plan.report import Report
from scheduler.plan.requests import Requests
from scheduler.plan.state import PlanState
from scheduler.recovery.loader import Loaded, Loader
from scheduler.recovery.replaying import Replayer
from scheduler.runtime.clock import BuildClock
from scheduler.stores import Departure, Journal
from scheduler.stores.appender import Appender, Appending
from scheduler.stores.jetstream import JetStreamStore
from scheduler.stores.keeper import Keeper
from scheduler.stores.log import BuildLog
from scheduler.stores.log_journal import LogJournal
from scheduler.stores.positions import ReplyPositions
from scheduler.supervision.reporting import Recorder
from scheduler.walk import Walk
from scheduler.walk.component import ComponentRun
from scheduler.walk.frontier import Frontier
from scheduler.walk.gates import Gates
from scheduler.walk.hold import Hold
from scheduler.walk.lineup import Lineup
from scheduler.walk.starts import Starts
from scheduler.walk.tasks import Tasks
from simulation.fleet_mutants import FLEET_MAKERS, Patch
from simulation.passing_mutants import PASSING_MAKERS
from simulation.share_mutants import SHARE_MAKERS


def _no_write_ahead() -> list[Patch]:
    """A request leaves while its start is still being persisted."""

    async def hasty(*_: object) -> None:
        await trio.lowlevel.checkpoint()

    return [(LogJournal, "persisted", hasty)]


def _accepted_too_early() -> list[Patch]:
    """A caller hears "accepted" before that is persisted."""
    append = JetStreamStore.append

    async def hasty(store: JetStreamStore, build: str, events: Sequence[Event]) -> None:
        if not events or not isinstance(events[0], Accepted):
            await append(store, build, events)
        elif build not in store._logs:
            log = store._logs[build] = BuildLog(build, store._context)
            log.beside = first_headers(events[0])
            log.put(map(encode_event, events))

    return [(JetStreamStore, "append", hasty)]


def _taken_for_stored() -> list[Patch]:
    """An append without an answer is taken for stored; it is not read back."""

    async def is_stored(*_: object) -> bool:
        await trio.lowlevel.checkpoint()
        return True

    return [(Appender, "is_stored", is_stored)]


def _blind_retry() -> list[Patch]:
    """An append without an answer is taken for lost, and is made again after whatever is there now."""

    async def is_stored(appender: Appender, *_: object) -> bool:
        last = await appender.last()
        appender.sequence = last.sequence if last is not None else 0
        return False

    return [(Appender, "is_stored", is_stored)]


def _no_compare_and_set() -> list[Patch]:
    """Appends say nothing of what they follow."""
    publish = JetStream.publish

    async def careless(js: JetStream, subject: str, data: bytes, **options: Any) -> Ack:
        return await publish(js, subject, data, **{**options, "expected": None})

    return [(JetStream, "publish", careless)]


def _no_fencing() -> list[Patch]:
    """A writer that was overtaken by another one continues behind it."""
    is_stored = Appender.is_stored

    async def stubborn(appender: Appender, record: Appending, reason: str) -> bool:
        try:
            return await is_stored(appender, record, reason)
        except Exception:  # noqa: BLE001 - whatever it says
            last = await appender.last()
            appender.sequence = last.sequence if last is not None else 0
            return False

    return [(Appender, "is_stored", stubborn)]


def _sending_after_an_error() -> list[Patch]:
    """Due components are sent, whatever failed."""

    def held(state: PlanState) -> bool:
        return state.stopped or state.paused

    return [
        (PlanState, "halted", property(lambda state: state.stopped, lambda *_: None)),
        (PlanState, "held", property(held, lambda *_: None)),
    ]


def _starts_that_are_not_withdrawn() -> list[Patch]:
    """A component whose start was persisted when another failed is not put back."""
    note = BuildLog.note

    def careless(log: BuildLog, *events: Event, order: Order | None = None) -> int:
        return note(log, *[event for event in events if not isinstance(event, Withdrawn)], order=order)

    return [(BuildLog, "note", careless)]


def _a_lost_outcome() -> list[Patch]:
    """Every fifth outcome is not told to the store."""
    note = BuildLog.note
    count = 0

    def forgetful(log: BuildLog, *events: Event, order: Order | None = None) -> int:
        nonlocal count
        lost = any(isinstance(event, Settled) for event in events)
        count += lost
        if not lost or count % 5:
            return note(log, *events, order=order)
        return 0

    return [(BuildLog, "note", forgetful)]


def _a_lost_wake_up() -> list[Patch]:
    """Every fifth component is not woken when it is its turn."""
    wake, count = Tasks.wake, 0

    def sleepy(tasks: Tasks, vertex: int) -> None:
        nonlocal count
        count += 1
        if count % 5:
            wake(tasks, vertex)

    return [(Tasks, "wake", sleepy)]


def _dependents_that_sleep_on() -> list[Patch]:
    """The event of a component that has settled is not set."""

    def silent(tasks: Tasks, vertex: int) -> None:
        tasks._awaited.pop(vertex, None)

    return [(Tasks, "wake_dependents", silent)]


def _dependents_that_do_not_wait() -> list[Patch]:
    """The start of a dependent is persisted before the outcome that allows it."""
    note, journal = BuildLog.note, JetStreamStore.journal
    stores: dict[int, JetStreamStore] = {}

    def known(store: JetStreamStore, build: str, *args: Any) -> Journal:
        stores[id(store._logs[build])] = store
        made: Journal = journal(store, build, *args)
        return made

    def late(log: BuildLog, *events: Event, order: Order | None = None) -> int:
        settled = [event for event in events if isinstance(event, Settled)]
        number = note(log, *[event for event in events if event not in settled], order=order)
        if settled:
            nursery = stores[id(log)]._nursery
            assert nursery is not None
            nursery.start_soon(later, log, settled)
        return number

    async def later(log: BuildLog, events: Sequence[Event]) -> None:
        await trio.sleep(0.2)
        note(log, *events)

    return [(BuildLog, "note", late), (JetStreamStore, "journal", known)]


def _replies_not_followed() -> list[Patch]:
    """Captured replies are not read."""

    def ignore(connectors: ConnectorClient, _: object, place: Position, provider: str = "") -> None:
        connectors.positions.see(place, provider)

    return [(ConnectorClient, "on_captured", ignore)]


def _position_too_far() -> list[Patch]:
    """The log says of replies that they were dealt with as soon as they were looked at."""
    return [(ReplyPositions, "position", lambda captured, _: captured.seen)]


def _sent_again_although_sent() -> list[Patch]:
    """A restart and a reconnect send everything again, whatever is known."""
    return [(Settings, "resend_for", lambda *_: Resend.ALWAYS)]


def _sent_without_knowing() -> list[Patch]:
    """A request is said to have left as soon as it is queued."""

    def hasty(log: BuildLog, event: Sent, departure: Departure) -> None:
        departure.reached = True
        log.put([encode_event(event)])

    return [(BuildLog, "note_sent", hasty)]


def _never_sent_again() -> list[Patch]:
    """Requests lost with a connection are not sent again."""
    return [(Starts, "send_again", lambda _: None)]


def _deadlines_before_replies() -> list[Patch]:
    """A build that is taken up continues before the captured replies are read."""
    begin = Loader._begin

    async def impatient(loader: Loader, *args: Any, **named: Any) -> None:
        for loaded in args:
            if isinstance(loaded, Loaded):
                loaded.caught_up.set()
        await begin(loader, *args, **named)

    return [(Loader, "_begin", impatient)]


def _outages_that_count() -> list[Patch]:
    """Time passes while the broker is away."""
    init = Timers.__init__

    class Always:
        connected = True

    def running(timers: Timers, *_: object, **__: object) -> None:
        init(timers, cast("Bus", Always()))

    return [(Timers, "__init__", running)]


def _report_not_stored() -> list[Patch]:
    """The report is published without being stored first."""

    async def report(recorder: Recorder, build: str, report: Report) -> None:
        body = b"".join(report.chunks())
        recorder._bus.publish(report.subject, body, headers={"Nats-Msg-Id": report_subject(build, 1)})
        await recorder._store.append(build, [])

    return [(Recorder, "report", report)]


def _report_stored_again() -> list[Patch]:
    """The process after a crash stores its own report."""
    publish = JetStream.publish

    async def careless(js: JetStream, subject: str, data: bytes, **options: Any) -> Ack:
        if subject.startswith("scheduler.report."):
            # The message id as well: the server remembers those of the last two minutes.
            identity = f"{subject}.{trio.current_time()}"
            options |= {"expected": None, "headers": {**options["headers"], "Nats-Msg-Id": identity}}
        return await publish(js, subject, data, **options)

    async def never(*_: object, **__: object) -> bool:
        await trio.lowlevel.checkpoint()
        return False

    return [(JetStream, "publish", careless), (Recorder, "is_stored", never)]


class _HastyBus:
    """A bus that takes for processed what is only queued."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    def publish(self, subject: str, data: bytes, **options: Any) -> SimpleNamespace:
        self._bus.publish(subject, data, **options)
        return SimpleNamespace(generation=self._bus.generation, refused=None)

    async def flush(self) -> None:
        await trio.lowlevel.checkpoint()


def _reported_without_knowing() -> list[Patch]:
    """A report counts as published as soon as it is queued."""
    init = Recorder.__init__

    def hasty(recorder: Recorder, bus: Bus, *args: Any, **options: Any) -> None:
        init(recorder, cast("Bus", _HastyBus(bus)), *args, **options)

    return [(Recorder, "__init__", hasty)]


def _unknown_appends_fail_the_build() -> list[Patch]:
    """A broker that does not answer fails the build."""
    publish = JetStream.publish

    async def brittle(js: JetStream, subject: str, data: bytes, **options: Any) -> Ack:
        try:
            return await publish(js, subject, data, **options)
        except WrongLastSequence:
            raise
        except BusError as error:
            raise RuntimeError(str(error)) from error

    return [(JetStream, "publish", brittle)]


def _one_id_for_all_attempts() -> list[Patch]:
    """A retry is sent under the id of the attempt before."""
    make = Requests.make

    def same(requests: Requests, vertex: int) -> Request:
        request = make(requests, vertex)
        attempt = f"{request.build}/{request.component}/1{request.mark}"
        return replace(request, attempt=attempt, started=replace(request.started, attempt=attempt))

    return [(Requests, "make", same)]


def _attempts_given_up_without_a_word() -> list[Patch]:
    """An attempt that an operator has given up is followed by another one, and the log is not told."""
    decide = steering.retry_now

    def silent(plan: Plan, vertex: int, why: str) -> list[Event]:
        decide(plan, vertex, why)
        return []

    return [(steering, "retry_now", silent)]


def _attempts_given_up_that_answer() -> list[Patch]:
    """A component whose attempt was given up is completed by that."""
    decide = steering.retry_now

    def bold(plan: Plan, vertex: int, why: str) -> list[Event]:
        if plan.phases[vertex] is not Phase.RUNNING:
            return decide(plan, vertex, why)
        return [plan.complete_with(vertex, {})]

    return [(steering, "retry_now", bold)]


def _retries_without_bound() -> list[Patch]:
    """A failed component is retried until it succeeds."""
    again = AttemptCounts.again

    def stubborn(attempts: AttemptCounts, vertex: int, rule: Retry, *args: Any) -> Again | str:
        return again(attempts, vertex, rule if rule.attempts == 1 else evolve(rule, attempts=1_000), *args)

    return [(AttemptCounts, "again", stubborn)]


def _retried_against_advice() -> list[Patch]:
    """A connector's words about other attempts are ignored."""
    again = AttemptCounts.again

    def deaf(attempts: AttemptCounts, vertex: int, rule: Retry, outcome: Outcome, *args: Any) -> Again | str:
        return again(attempts, vertex, rule, replace(outcome, retryable=True, retry_after=None), *args)

    return [(AttemptCounts, "again", deaf)]


def _pauses_that_do_not_hold() -> list[Patch]:
    """A paused build continues."""
    return [
        (PlanState, "held", property(lambda state: state.halted, lambda *_: None)),
        (PlanState, "paused", property(lambda _: False, lambda *_: None)),
    ]


def _pauses_that_leave_what_waits() -> list[Patch]:
    """What waits for the connection, the lease or a listener leaves during the pause."""

    def pause(hold: Hold) -> int:
        hold.stop_time(hold._runs[vertex] for vertex in hold._plan.phases.within(Phase.RETRYING))
        return 0

    return [(Hold, "pause", pause)]


def _pauses_that_end_with_the_process() -> list[Patch]:
    """The next process continues a paused build."""
    replay = Plan.replay

    def forgetful(plan: Plan, event: Event) -> None:
        if not isinstance(event, Paused):
            replay(plan, event)

    return [(Plan, "replay", forgetful)]


def _forgetful_of(kind: type[Event]) -> list[Patch]:
    note = BuildLog.note

    def forgetful(log: BuildLog, *events: Event, order: Order | None = None) -> int:
        return note(log, *[event for event in events if not isinstance(event, kind)], order=order)

    return [(BuildLog, "note", forgetful)]


def _cancelled_in_memory_only() -> list[Patch]:
    """That a build was cancelled is acknowledged, and not persisted."""
    return _forgetful_of(Cancelled)


def _supplied_in_memory_only() -> list[Patch]:
    """An operator's output is acknowledged, but not persisted."""
    return _forgetful_of(Supplied)


def _supplied_and_sent() -> list[Patch]:
    """An operator's output for a waiting component is ignored when that is due."""
    return [
        (Plan, "is_instant", lambda *_: False),
        (Plan, "begin", _beginning(Plan.begin, lambda plan, vertex: plan.state.outputs.pop(vertex, None))),
    ]


def _beginning(begin: Callable[..., Any], before: Callable[[Plan, int], object]) -> Callable[..., Any]:
    def changed(plan: Plan, vertex: int, *args: Any) -> Any:
        before(plan, vertex)
        return begin(plan, vertex, *args)

    return changed


def _slots_given_back_twice() -> list[Patch]:
    """A request releases its slots twice."""
    release = Slots.release

    def generous(slots: Slots, build: Any, subject: str, size: int = 0) -> None:
        release(slots, build, subject, size)
        account = slots.limiter.usages.get(build)
        if account is not None and account.flying.get(subject):
            release(slots, build, subject)
            account.flying[subject] = account.flying.get(subject, 0) + 1

    return [(Slots, "release", generous)]


def _limits_of_builds_not_read() -> list[Patch]:
    """The limits that a build has of its own do not count."""

    def careless(slots: Slots, build: Any, *_: object) -> None:
        slots.limiter.usages.make(build).opened = True

    return [(Slots, "open", careless), (Slots, "change", lambda *_: None)]


def _a_plan_that_changes_by_hand() -> list[Patch]:
    """A component waits again, and the event that says so was never applied."""

    def careless(plan: Plan, vertex: int) -> Withdrawn:
        change = plan.build.changes[vertex]
        plan.phases.move(vertex, Phase.WAITING)
        return Withdrawn(change.id, change.raw, plan.state.attempts.failed(vertex))

    return [(Plan, "withdraw", careless)]


def _what_is_in_flight_has_no_slot() -> list[Patch]:
    """Requests of an earlier process do not count for the limits."""

    def release(slots: Slots, build: Any, subject: str, size: int = 0) -> None:
        account = slots.limiter.usages.get(build)
        if account is not None and account.flying.get(subject):
            give_back(slots, build, subject, size)

    give_back = Slots.release
    return [(Slots, "occupy", lambda *_: None), (Slots, "release", release)]


def _bytes_that_do_not_count() -> list[Patch]:
    """A request is sent as soon as it has its slots, however many bytes it takes."""
    return [(ByteBudget, "fits", lambda *_: True)]


def _a_build_that_leaves_nothing_to_others() -> list[Patch]:
    """One build may take all of the bytes."""

    def fits(budget: ByteBudget, _: object, size: int) -> bool:
        return budget.taken + size <= budget.most

    return [(ByteBudget, "fits", fits)]


def _nobody_learns_that_there_is_room() -> list[Patch]:
    """A request that waits for bytes is not woken when some are released."""
    return [(ByteBudget, "freed", lambda _: iter(()))]


def _dependents_of_what_failed() -> list[Patch]:
    """A build that continues after an error also starts the dependents of the failed component."""
    begin = Plan.begin

    def careless(plan: Plan, vertex: int, *_: Any) -> Any:
        if plan.state.held or plan.is_instant(vertex):
            return begin(plan, vertex)
        try:
            request = plan.requests.make(vertex)
        except TemplateError as error:
            return plan.fail(vertex, str(error))
        plan.state.apply(request.started)
        return request

    return [(Plan, "begin", careless), (PlanState, "_skip_behind", lambda *_: None)]


def _durations_by_the_wall_clock() -> list[Patch]:
    """A build's clock goes by the machine's."""
    return [(BuildClock, "__call__", lambda _: time.time())]


def _clocks_that_begin_run() -> list[Patch]:
    """The next process goes by its own clock, though times in the log are later."""
    init = BuildClock.__init__

    def forgetful(clock: BuildClock, wall_clock: Callable[[], float] = time.time, *_: object) -> None:
        init(clock, wall_clock)

    return [(BuildClock, "__init__", forgetful), (BuildClock, "go_on_after", lambda *_: None)]


def _a_cycle_in_each_build() -> list[Patch]:
    """A finished build refers to itself, and stays until garbage is collected."""
    init = Walk.__init__

    def knotted(walk: Walk, *args: Any, **options: Any) -> None:
        init(walk, *args, **options)
        walk._component_tasks.walk = walk  # type: ignore[attr-defined]

    return [(Walk, "__init__", knotted)]


def _a_heartbeat_that_completes() -> list[Patch]:
    """A heartbeat that says so is taken for the reply."""
    take = Beats.take

    def credulous(beats: Beats, message: Message) -> None:
        take(beats, message)
        call = beats._calls.get(message.subject[BEAT_ADDRESS])
        if call is not None and (outcome := read_reply(message.data, None)) is not None:
            call.deliver(outcome)

    return [(Beats, "take", credulous)]


def _a_lost_connector_is_the_end() -> list[Patch]:
    """A component whose connector is lost is not tried again."""

    def final(text: str, **options: Any) -> Outcome:
        return failure(text, **{**options, "retryable": not text.startswith("connector lost")})

    return [(scheduler.dispatch.sending, "failure", final)]


def _heartbeats_that_are_not_heard() -> list[Patch]:
    """A heartbeat says how far a connector is, and does not count."""

    def deaf(beats: Beats, message: Message) -> None:
        call = beats._calls.get(message.subject[BEAT_ADDRESS])
        if call is not None and call.pulse is not None:
            call.pulse.heard = trio.current_time()

    return [(Beats, "take", deaf)]


def _sent_again_whatever_is_named() -> list[Patch]:
    """A connector that is back gets what it names, also where that was given up."""

    def generous(_: Returned, call: Call, __: float) -> bool:
        call.publish()
        return True

    async def all_of_them(returned: Returned) -> dict[str, Call]:
        await trio.lowlevel.checkpoint()
        late = returned._send_again.__self__.router.by_token.values()  # type: ignore[attr-defined]
        return {call.request.attempt: call for call in late}

    return [
        (Returned, "_send", generous),
        (Returned, "_in_flight", all_of_them),
        (Call, "forget_the_request", lambda _: None),
    ]


def _no_second_listener() -> list[Patch]:
    """Replies come in on one connection."""
    init = ConnectorClient.__init__

    def deaf(connectors: ConnectorClient, *args: Any, **options: Any) -> None:
        init(connectors, *args, **{**options, "listener": None})

    return [(ConnectorClient, "__init__", deaf)]


def _pauses_by_the_clock_of_the_next_process() -> list[Patch]:
    """The rest of a pause is computed from the clock, however far that is behind the log."""
    resumption = Replayer.resumption

    def credulous(replayer: Replayer, plan: Plan, history: History, *args: Any) -> Any:
        latest, history.latest = history.latest, 0
        try:
            return resumption(replayer, plan, history, *args)
        finally:
            history.latest = latest

    return [(Replayer, "resumption", credulous)]


def _purged_logs_are_taken_for_anothers() -> list[Patch]:
    """A process that finds a build's log gone forgets the build, as if another process had it."""
    return [(scheduler.stores.appender, "LogRemoved", Fenced)]


def _streams_that_are_not_made_again() -> list[Patch]:
    """A stream that was removed stays so."""

    async def make(*_: object) -> None:
        await trio.lowlevel.checkpoint()

    return [(Keeper, "_make", make)]


def _siblings_in_any_order() -> list[Patch]:
    """Components made due by one completion leave in any order."""
    settle = Frontier.settle

    def shuffled(frontier: Frontier, vertex: int) -> list[int]:
        return settle(frontier, vertex)[::-1]

    return [(Frontier, "settle", shuffled)]


def _slots_before_dependents() -> list[Patch]:
    """A slot is given out before what its completion has made due stands in the queue."""
    land = Lineup.land

    def hasty(lineup: Lineup, vertex: int) -> None:
        run = lineup._runs.get(vertex)
        if run is not None:
            lineup._slots.give_back(run)
        land(lineup, vertex)

    return [(Lineup, "land", hasty)]


def _work_that_costs_nothing() -> list[Patch]:
    """No work is taken off, and so there is no bound for it."""
    return [(Work, "spend", lambda *_: None)]


def _rendered_while_others_wait() -> list[Patch]:
    """Long rendering is done on the loop."""
    render = Template.render

    def stubborn(template: Template, scope: Scope, **options: Any) -> Rendered:
        return render(template, scope, **{**options, "inline": False})

    return [(Template, "render", stubborn)]


def _read_while_others_wait() -> list[Patch]:
    """However long it takes to check the references of a build, it is done on the loop."""

    def stubborn(*args: Any, **options: Any) -> Prepared:
        return read_build(*args, **{**options, "inline": False})

    return [(scheduler.supervision.reader, "read_build", stubborn)]


def _gates_that_are_sent() -> list[Patch]:
    """A gate is a component like any other: whoever takes its request may answer it."""
    actions = SimpleNamespace(FIND=Action.FIND, APPROVE=None)
    return [
        (scheduler.plan.plan, "gates_of", lambda _: ()),
        (scheduler.plan.requests, "Action", actions),
    ]


def _gates_that_open_by_themselves() -> list[Patch]:
    """A gate completes as soon as it is reached."""

    async def hasty(gates: Gates, run: ComponentRun) -> None:
        await gates._outcomes.keep(gates._plan.complete_with(run.vertex, {}))

    return [(Gates, "wait", hasty)]


def _approvals_in_memory_only() -> list[Patch]:
    """That a gate was approved is acknowledged, and not persisted."""
    note = BuildLog.note

    def forgetful(log: BuildLog, *events: Event, order: Order | None = None) -> int:
        kept = [one for one in events if not (isinstance(one, Settled) and "approved_by" in one.body)]
        return note(log, *kept, order=order)

    return [(BuildLog, "note", forgetful)]


def _gates_bounded_like_attempts() -> list[Patch]:
    """A gate without a time of its own fails as soon as an attempt would."""
    until_decided = Gates._until_decided

    async def impatient(gates: Gates, run: ComponentRun) -> None:
        with trio.move_on_after(1.0):
            await until_decided(gates, run)
        if gates._plan.is_due(run.vertex):
            await gates._outcomes.keep(expire(gates._plan, run.vertex, 1.0))

    return [(Gates, "_until_decided", impatient)]


_MAKERS: tuple[Callable[[], list[Patch]], ...] = (
    _no_write_ahead,
    _accepted_too_early,
    _taken_for_stored,
    _blind_retry,
    _no_compare_and_set,
    _no_fencing,
    _sending_after_an_error,
    _starts_that_are_not_withdrawn,
    _a_lost_outcome,
    _a_lost_wake_up,
    _dependents_that_sleep_on,
    _dependents_that_do_not_wait,
    _replies_not_followed,
    _position_too_far,
    _sent_again_although_sent,
    _sent_without_knowing,
    _never_sent_again,
    _deadlines_before_replies,
    _outages_that_count,
    _report_not_stored,
    _report_stored_again,
    _reported_without_knowing,
    _unknown_appends_fail_the_build,
    _one_id_for_all_attempts,
    _attempts_given_up_without_a_word,
    _attempts_given_up_that_answer,
    _retries_without_bound,
    _retried_against_advice,
    _pauses_that_do_not_hold,
    _pauses_that_leave_what_waits,
    _pauses_that_end_with_the_process,
    _cancelled_in_memory_only,
    _supplied_in_memory_only,
    _supplied_and_sent,
    _slots_given_back_twice,
    _limits_of_builds_not_read,
    _what_is_in_flight_has_no_slot,
    _a_plan_that_changes_by_hand,
    _bytes_that_do_not_count,
    _a_build_that_leaves_nothing_to_others,
    _nobody_learns_that_there_is_room,
    _dependents_of_what_failed,
    _durations_by_the_wall_clock,
    _clocks_that_begin_run,
    _pauses_by_the_clock_of_the_next_process,
    _a_heartbeat_that_completes,
    _a_lost_connector_is_the_end,
    _heartbeats_that_are_not_heard,
    _sent_again_whatever_is_named,
    _no_second_listener,
    _a_cycle_in_each_build,
    _purged_logs_are_taken_for_anothers,
    _streams_that_are_not_made_again,
    _siblings_in_any_order,
    _slots_before_dependents,
    _work_that_costs_nothing,
    _rendered_while_others_wait,
    _read_while_others_wait,
    _gates_that_are_sent,
    _gates_that_open_by_themselves,
    _approvals_in_memory_only,
    _gates_bounded_like_attempts,
)
MUTANTS: Mapping[str, Callable[[], list[Patch]]] = {
    maker.__name__.strip("_").replace("_", " "): maker
    for maker in (*_MAKERS, *FLEET_MAKERS, *SHARE_MAKERS, *PASSING_MAKERS)
}


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """Put the fault into the package while the context lasts."""
    with ExitStack() as stack:
        for holder, attribute, wrong in MUTANTS[name]():
            new = not hasattr(holder, attribute)
            stack.enter_context(mock.patch.object(holder, attribute, wrong, create=new))
        yield
