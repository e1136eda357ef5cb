"""Deliberate faults of the leases and of what rests on them, as in `simulation.mutants`."""

from collections.abc import Awaitable, Callable, Collection, Iterable
from types import SimpleNamespace
from typing import Any, TypeAlias, cast

import trio

import scheduler.fleet.lease
import scheduler.supervision.giving
from scheduler.bus import Bus
from scheduler.dispatch.sending import Sending
from scheduler.fleet.absences import Absences
from scheduler.fleet.bucket import LeaseBucket
from scheduler.fleet.fleet import Fleet
from scheduler.fleet.keeper import LeaseKeeper
from scheduler.fleet.lease import Judge, Lease, Member
from scheduler.fleet.sharing import Sharing
from scheduler.jetstream.answers import Ack
from scheduler.jetstream.api import JetStream
from scheduler.journal.records import LEFT
from scheduler.recovery.durable import Durable, _Tenure
from scheduler.stores.jetstream import JetStreamStore
from scheduler.supervision.draining import give_away
from scheduler.supervision.giving import Rebalancer
from scheduler.supervision.peers import Peers
from scheduler.walk import Walk

Patch: TypeAlias = tuple[object, str, object]
"""Object whose attribute is replaced, the attribute's name, and its replacement."""


def _a_lease_taken_without_reading_back() -> list[Patch]:
    """A renewal that was refused is made again over whatever stands there."""

    async def credulous(keeper: LeaseKeeper) -> None:
        found = await keeper._bucket.last(keeper.key)
        keeper.revision = 0 if found is None else found.sequence

    return [(LeaseKeeper, "_read_back", credulous)]


def _leases_without_compare_and_set() -> list[Patch]:
    """A lease is written, whatever stands there."""
    write = LeaseBucket.write

    async def careless(bucket: LeaseBucket, key: str, lease: Lease, *, expected: int) -> int:
        del expected
        return await write(bucket, key, lease, expected=cast("int", None))

    return [(LeaseBucket, "write", careless)]


def _sending_after_the_renew_deadline() -> list[Patch]:
    """A renewal counts for as long as the others wait, and longer."""
    return [(scheduler.fleet.lease, "RENEW_WITHIN", 25.0)]


def _renewals_that_count_from_their_answers() -> list[Patch]:
    """A lease is fresh from when its renewal is known to have gone through."""
    hold = LeaseKeeper._hold

    def late(keeper: LeaseKeeper, _: float) -> None:
        hold(keeper, trio.current_time())

    return [(LeaseKeeper, "_hold", late)]


def _a_lapse_that_withdraws_nothing() -> list[Patch]:
    """What waits for a connection leaves, though the lease ran out."""
    return [(Durable, "_on_lapse", lambda _: None)]


def _requests_that_are_not_held_back() -> list[Patch]:
    """What is begun while the lease is not fresh leaves at once."""
    publish = Sending._publish

    def hasty(sending: Sending, call: Any) -> None:
        held, sending.held = sending.held, None
        try:
            publish(sending, call)
        finally:
            sending.held = held

    return [(Sending, "_publish", hasty)]


def _held_requests_without_a_record() -> list[Patch]:
    """What was held back leaves once the lease is renewed; nothing shows that the build is still its own."""

    async def sure(*_: object) -> None:
        await trio.lowlevel.checkpoint()

    return [(_Tenure, "confirm", sure)]


def _live_leases_ignored() -> list[Patch]:
    """Builds are taken over from whoever has them."""

    async def alone(durable: Durable, *_: object) -> frozenset[str]:
        await trio.lowlevel.checkpoint()
        return frozenset({durable.id})

    return [(Durable, "_owners", alone)]


def _owners_of_some_time_ago() -> list[Patch]:
    """Logs are judged by a look that may be older than they are."""

    async def known(durable: Durable, _: Peers, __: Collection[str]) -> frozenset[str]:
        await trio.lowlevel.checkpoint()
        return durable.fleet.owners()

    return [(Durable, "_owners", known)]


def _time_without_sight_that_counts() -> list[Patch]:
    """A lease lapses in a time in which nobody could read it."""
    return [(Judge, "miss", lambda _: None), (scheduler.fleet.lease, "_LONGEST_STEP", 1e9)]


def _leases_that_lapse_too_early() -> list[Patch]:
    """Others do not wait until a holder has stopped."""
    return [(scheduler.fleet.lease, "LEASE", 6.0)]


def _absences_in_a_cluster() -> list[Patch]:
    """An instance that is on the other side of a partition has gone."""
    ask = Absences.ask

    async def sure(absences: Absences, others: Iterable[Member], known: Any) -> None:
        bus = absences._bus
        lone = SimpleNamespace(clustered=False, request=bus.request, generation=bus.generation)
        absences._bus = cast("Bus", lone)
        try:
            await ask(absences, others, known)
        finally:
            absences._bus = bus

    return [(Absences, "ask", sure)]


def _gone_instances_that_count_as_live() -> list[Patch]:
    """An instance that has ended in order keeps its builds until its lease has lapsed."""
    return [(Member, "live", property(lambda member: not member.lapsed))]


def _an_end_that_nobody_is_told_of() -> list[Patch]:
    """An instance that ends in order leaves its builds behind, and its lease."""

    async def silent(_: Fleet) -> None:
        await trio.lowlevel.checkpoint()

    return [(Fleet, "leave", silent)]


def _taking_over_without_compare_and_set() -> list[Patch]:
    """The record that takes a build over says nothing of what it follows."""
    publish = JetStream.publish

    async def careless(js: JetStream, subject: str, data: bytes, **options: Any) -> Ack:
        if b'"event":"loading"' in data:
            options["expected"] = None
        return await publish(js, subject, data, **options)

    return [(JetStream, "publish", careless)]


def _an_epoch_that_stays() -> list[Patch]:
    """A build that is taken over keeps its epoch."""
    opened = JetStreamStore.open

    def same(store: JetStreamStore, build: str, **options: Any) -> Any:
        return opened(store, build, **{**options, "epoch": max(1, options["epoch"] - 1)})

    return [(JetStreamStore, "open", same)]


def _a_build_given_away_that_goes_on() -> list[Patch]:
    """A giver sends and persists, until it says that another one is to have the build."""

    def unhalted(walk: Walk, give: Callable[[], Awaitable[None]]) -> None:
        walk._give = give

    return [(Walk, "give", unhalted)]


def _a_last_word_that_is_not_the_last() -> list[Patch]:
    """A giver says that nobody owns the build, and only then stops."""

    async def hasty(walk: Walk, store: JetStreamStore, to: str) -> None:
        log = store._log(walk.id)
        log.word, log.heir = LEFT, to
        await log.confirm()
        log.word = log.heir = ""
        await give_away(walk, store, to)

    return [(scheduler.supervision.giving, "give_away", hasty)]


def _builds_given_away_in_silence() -> list[Patch]:
    """Nobody is told that a build may be taken over, nor looks."""
    return [
        (Rebalancer, "_say", lambda *_: None),
        (Rebalancer, "_note_gift", lambda _: None),
    ]


def _limited_requests_that_change_hands() -> list[Patch]:
    """A build is given away with requests in flight that count for a limit of the fleet."""
    return [(Sharing, "holds_for", lambda *_: False)]


FLEET_MAKERS: tuple[Callable[[], list[Patch]], ...] = (
    _a_lease_taken_without_reading_back,
    _leases_without_compare_and_set,
    _sending_after_the_renew_deadline,
    _renewals_that_count_from_their_answers,
    _a_lapse_that_withdraws_nothing,
    _requests_that_are_not_held_back,
    _held_requests_without_a_record,
    _live_leases_ignored,
    _owners_of_some_time_ago,
    _time_without_sight_that_counts,
    _leases_that_lapse_too_early,
    _absences_in_a_cluster,
    _gone_instances_that_count_as_live,
    _an_end_that_nobody_is_told_of,
    _taking_over_without_compare_and_set,
    _an_epoch_that_stays,
    _a_build_given_away_that_goes_on,
    _a_last_word_that_is_not_the_last,
    _builds_given_away_in_silence,
    _limited_requests_that_change_hands,
)
