"""Giving a build to an idle instance of the fleet, and getting one: what `fleet.rebalancing` decides is done.

A build is *offered* first. The other instance agrees or refuses; one of an earlier version does not listen,
and gets none. Then the build is left as at an orderly stop, and the other one is told that it may be taken
over. Nothing is lost with a message: what the other one does not take over soon is taken back.
"""

from collections.abc import Callable
from typing import Final, Protocol

import msgspec
import trio

from scheduler.bus import Bus, Message
from scheduler.definition.strictjson import encode
from scheduler.definition.subjects import may_be_answered
from scheduler.definition.tokens import encode_token
from scheduler.errors import BusError
from scheduler.fleet.fleet import INSTANCE, Fleet
from scheduler.fleet.lease import PERIOD, Member, Standing
from scheduler.fleet.rebalancing import LEAST_GAP, Burden, Move, Rests, Taker, choose, fits
from scheduler.runtime.log_limits import RateLimitedLog
from scheduler.runtime.logger import Logger
from scheduler.runtime.pace import paced
from scheduler.supervision.draining import Leaving, give_away
from scheduler.supervision.roster import Roster
from scheduler.walk import Walk

OFFER: Final = "offer"
"""Verb that offers a build to an instance."""
GIVEN: Final = "given"
"""Verb that says that a build may be taken over now."""
GIVES: Final = "a build is given to another instance"
GETS: Final = "a build is taken over from an instance that has more to do"
KEPT: Final = "a build was to be given to another instance, and stays"
_PATIENCE: Final = 2.0
"""Seconds for the answer to an offer."""
_LOOKED_AT_AT_ONCE: Final = 1_000
"""Builds that are looked at in a millisecond."""

log = Logger()


class Limits(Protocol):
    """Limits over the fleet, such as `fleet.sharing.Sharing`."""

    @property
    def concerned(self) -> bool:
        """Whether anybody in the fleet has limits."""

    def holds_for(self, subject: str) -> bool:
        """Return whether requests on a subject count for one of them."""


class _Offer(msgspec.Struct):
    """Offer of a build."""

    build: str
    components: int
    """Components of it that have not settled."""
    load: int
    """Components that are active at the instance that has it."""
    by: str = ""
    """Name of that instance."""


class _Answer(msgspec.Struct):
    takes: bool


class _Given(msgspec.Struct):
    build: str
    by: str = ""


class Rebalancer:
    """Gives builds to other instances, and gets some from them; `run` has to be running.

    Args:
        fleet: this process and the others.
        bus: connection for offers.
        roster: roster of the builds that run here.
        store: store of the builds.
        limits: limits over the fleet.
        on_orphan: callback for when a build has no owner any more.
    """

    def __init__(
        self,
        fleet: Fleet,
        bus: Bus,
        roster: Roster,
        store: Leaving,
        *,
        limits: Limits,
        on_orphan: Callable[[], None],
    ) -> None:
        self._fleet = fleet
        self._bus = bus
        self._roster = roster
        self._store = store
        self._limits = limits
        self._on_orphan = on_orphan
        self._rests = Rests()
        self._log = RateLimitedLog(log)

    async def run(self) -> None:
        """Look from time to time whether a build is to be given away, and answer offers; never returns.

        Raises:
            BusError: the broker does not let us listen.
        """
        async with trio.open_nursery() as nursery:
            for verb, handler in ((OFFER, self._on_offer), (GIVEN, self._on_given)):
                nursery.start_soon(self._bus.subscribe, f"{self._fleet.subject}{verb}", handler)
        while True:
            await trio.sleep(PERIOD)
            move = await self.decide()
            if move is not None:
                await self._give(move)

    # ---- giving

    async def decide(self) -> Move | None:
        """Return what is to be moved now; None where nothing is."""
        roster, rests, now = self._roster, self._rests, trio.current_time()
        others = self._fleet.others()
        # Quick, as nearly always nothing is to be done.
        if not others:
            return None
        rests.see(roster.ids(), now)
        takers = [taker for taker in map(_taker, others) if rests.may_get(taker.key)]
        if not takers or roster.components < LEAST_GAP or not rests.may_give(now) or not self._is_sound:
            return None
        ours, burdens = 0, []
        async for walk in paced(roster.walks(), every=_LOOKED_AT_AT_ONCE):
            components = len(walk.plan.phases)
            left = components - walk.plan.phases.settled
            ours += left
            if rests.may_leave(walk.id, now):
                burdens.append(Burden(walk.id, left, components))
        moves = choose(ours, burdens, takers)
        return next((move for move in moves if self._leaving(move.build) is not None), None)

    @property
    def _is_sound(self) -> bool:
        """Whether all is well with this instance, so that it knows what it has."""
        working = self._fleet.keeper.standing is Standing.ACTIVE and not self._roster.quiet
        return working and self._fleet.fresh and self._store.available

    def _leaving(self, build: str) -> Walk | None:
        """Return the walk of a build that may leave now; None where it may not. Synchronous.

        One that is paused, or fails, has nothing to do elsewhere. A request that counts for a limit of the
        fleet would not be counted while the build changes hands.
        """
        walk = self._roster.walk(build)
        if walk is None or not walk.steerable or walk.plan.state.held or walk.plan.state.over:
            return None
        if not self._limits.concerned:
            return walk
        if len({member.lease.limits for member in self._fleet.members() if member.live}) > 1:
            return None
        subjects = {call.request.subject for call in walk.calls()}
        return None if any(map(self._limits.holds_for, subjects)) else walk

    async def _give(self, move: Move) -> None:
        """Offer a build, and leave it to the other instance if that agrees."""
        self._rests.begin(trio.current_time())
        self._rests.moved(move.build, trio.current_time())
        if not await self._offer(move):
            self._rests.refused(move.taker.key, trio.current_time())
            return
        walk = self._leaving(move.build) if self._is_sound else None
        if walk is None:
            log.info(KEPT, build=move.build, to=move.taker.key)
            return
        log.info(GIVES, build=walk.id, to=move.taker.key, in_flight=walk.plan.phases.in_flight)
        await give_away(walk, self._store, move.taker.instance)
        # For as long as the store needs: the build is nobody else's before.
        await self._roster.until_gone(walk.id)
        if not walk.given:
            return
        self._rests.given(walk.id, move.taker.key)
        self._say(move.taker.key, GIVEN, encode({"build": walk.id, "by": self._fleet.name}))
        self._note_gift()

    def _note_gift(self) -> None:
        """Look for the build that was given away: it is taken back unless the other one takes it soon."""
        self._on_orphan()

    async def _offer(self, move: Move) -> bool:
        """Return whether the other instance agrees to get a build."""
        load = self._fleet.keeper.load().components
        offer = {"build": move.build, "components": move.left, "load": load, "by": self._fleet.name}
        try:
            with trio.fail_after(_PATIENCE):
                subject = f"{INSTANCE}{move.taker.key}.{OFFER}"
                answer = await self._bus.request(subject, encode(offer))
            return msgspec.json.decode(answer.data, type=_Answer).takes
        except (BusError, trio.TooSlowError, msgspec.MsgspecError, UnicodeError) as error:
            self._log.info("a build was offered to an instance in vain", to=move.taker.key, why=repr(error))
            return False

    def _say(self, key: str, verb: str, data: bytes) -> None:
        try:
            self._bus.publish(f"{INSTANCE}{key}.{verb}", data)
        except BusError as error:
            log.info("the other instance is not told: the build is taken back", reason=str(error))

    # ---- getting

    def _on_offer(self, message: Message) -> None:
        """Answer an offer. What is agreed to is not sure to come."""
        if not may_be_answered(message.reply):
            return
        try:
            offer = msgspec.json.decode(message.data, type=_Offer)
        except (msgspec.MsgspecError, UnicodeError):
            self._log.warning("a message is ignored: no instance offers a build like that")
            return
        now = trio.current_time()
        takes = self._takes(offer, now)
        if takes:
            self._rests.accept(offer.build, now)
        try:
            self._bus.publish(message.reply, encode({"takes": takes}))
        except BusError as error:
            self._log.info("another instance is not answered", reason=str(error))

    def _takes(self, offer: _Offer, now: float) -> bool:
        if not self._is_sound or self._roster.full or not self._rests.may_accept(now):
            return False
        if self._roster.set_aside(offer.build) or self._roster.holds(offer.build):
            # It would not be taken over, and its giver would wait for that.
            return False
        return fits(offer.load, self._fleet.keeper.load().components, offer.components)

    def _on_given(self, message: Message) -> None:
        """Look for a build that this instance is to take over."""
        try:
            given = msgspec.json.decode(message.data, type=_Given)
        except (msgspec.MsgspecError, UnicodeError):
            self._log.warning("a message is ignored: no instance gives a build like that")
            return
        self._log.info(GETS, build=given.build, by=given.by)
        self._on_orphan()


def _taker(member: Member) -> Taker:
    lease = member.lease
    return Taker(encode_token(lease.name), lease.instance, lease.load.components, member.age, member.takes)
