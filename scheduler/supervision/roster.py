"""The roster of a process: builds that it holds, has reported lately, or has quarantined.

An id is held from when a part of the process begins to find out whether the build can run here, until its
report is out. So a second build with the same id, or one that comes while its log is being read, waits until
the first is decided.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable

import trio
from attrs import define, field

from scheduler.dispatch.call import Call
from scheduler.dispatch.senders import UNKNOWN
from scheduler.limiter import may_have_one_more
from scheduler.supervision.explainer import Seen
from scheduler.supervision.feed import Track
from scheduler.supervision.refusals import refused, shutting_down
from scheduler.text import doing
from scheduler.walk import Walk

_MOST_REPORTED = 10_000
"""Reported builds that are remembered."""
_WORTH_NOTING = 1.0
"""Shortest outage that is persisted, in seconds, so that it moves deadlines in the next process too."""


@define(eq=False)
class Held:
    """Build that this process holds, is about to hold, or has reserved the id of."""

    build: str
    digest: bytes = b""
    sender: str = UNKNOWN
    """Sender of the build; unknown for one that an earlier process left."""
    reserved: bool = False
    """Whether only its id is held, while its log is being read."""
    decided: trio.Event = field(factory=trio.Event)
    """Event that is set once it is known whether the build is taken."""
    refusal: tuple[str, str] | None = None
    """Code and text of the refusal; an exception, with its traceback, would keep all this alive."""
    walk: Walk | None = None
    track: Track | None = None
    """Its events and times; there where ``walk`` is."""
    gone: trio.Event = field(factory=trio.Event)
    """Event that is set once it is not held any more."""


class Roster:
    """Builds of this process, by id.

    Args:
        max_builds: builds at a time; more are refused as ``busy``, and one sender gets seven eighths of them.
        report_waits: returns why the report of a build is not out yet (`Reporter.waits`).
    """

    def __init__(self, max_builds: int, report_waits: Callable[[str], str] = lambda _: "") -> None:
        self.quarantined: dict[str, str] = {}
        """Quarantined builds by id, with the reason."""
        self.left: dict[str, str] = {}
        """Builds that this process could not take up, and leaves to others, with the reason: those that
        another one has are in no quarantine any more."""
        self.passing: set[str] = set()
        """Those of them that were left for a reason that may pass; a log beyond this version is none."""
        self.begun: Counter[str] = Counter()
        """Number of builds that began here: ``submitted``, ``taken_over`` or ``retried`` after their end."""
        self.ended: Counter[str] = Counter()
        """Number of builds that ended here, by the status of their report; ``left``: without one."""
        self._max_builds = max_builds
        self._report_waits = report_waits
        self._held: dict[str, Held] = {}
        self._senders: Counter[str] = Counter()
        """Number of builds held, by sender."""
        self._components = 0
        self._bytes = 0
        """Size of the builds that run, as submitted, in bytes."""
        self._reported: OrderedDict[str, None] = OrderedDict()
        self._stopping = False
        self._quiet = False
        self._idle = trio.Event()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def stopping(self) -> bool:
        """Whether no more builds are taken, or taken up."""
        return self._stopping

    @property
    def quiet(self) -> bool:
        """Whether nothing more is sent for any build."""
        return self._quiet

    @property
    def components(self) -> int:
        """Number of components of the builds that run."""
        return self._components

    @property
    def submitted_bytes(self) -> int:
        """Size of the builds that run, as submitted, in bytes."""
        return self._bytes

    @property
    def full(self) -> bool:
        """Whether there is no room for another build now."""
        return self._stopping or len(self._held) >= self._max_builds

    def forget_left(self, build: str) -> None:
        """Forget that a build was left: it may be taken up here again."""
        self.quarantined.pop(build, None)
        self.left.pop(build, None)
        self.passing.discard(build)

    def set_aside(self, build: str) -> bool:
        """Return whether this process is not to take a build up (again)."""
        return build in self.quarantined or build in self.left

    def holds(self, build: str) -> bool:
        """Return whether a build is held here."""
        return build in self._held

    def has_reported(self, build: str) -> bool:
        """Return whether the last run of this build ended here: a reply that comes now must not revive it."""
        return build in self._reported

    def sender_of(self, build: str) -> str:
        """Return the sender of a build that is held here; `UNKNOWN` where that cannot be told."""
        held = self._held.get(build)
        return UNKNOWN if held is None else held.sender

    def ids(self) -> list[str]:
        """Return the ids of the builds that run here."""
        return [walk.id for walk in self.walks()]

    def walks(self) -> list[Walk]:
        """Return the walks of the builds that run here."""
        return [held.walk for held in self._held.values() if held.walk is not None]

    def walk(self, build: str) -> Walk | None:
        """Return the walk of a build that runs here; None where none of this id does."""
        held = self._held.get(build)
        return None if held is None else held.walk

    def see(self, build: str) -> Seen | None:
        """Return a build that runs here, to look at; None where none of this id does."""
        held = self._held.get(build)
        if held is None or held.walk is None or held.track is None:
            return None
        track = held.track
        return Seen(
            held.walk.plan,
            track.timings,
            held.walk,
            track.sequence,
            track.source,
            self._report_waits(build),
            identity=track.source,
            revision=track.revision,
            orders=track.orders,
        )

    def long_waits(self, seconds: float) -> list[tuple[str, str, float]]:
        """Return builds whose oldest request has waited longer than this: build, component, seconds."""
        now = trio.current_time()
        waits = ((walk.id, walk.longest_wait()) for walk in self.walks())
        return [(build, wait[0], now - wait[1]) for build, wait in waits if wait and now - wait[1] > seconds]

    async def until_gone(self, build: str) -> None:
        """Wait until a build that has ended is not held any more; the caller sets the deadline."""
        held = self._held.get(build)
        if held is not None:
            await held.gone.wait()

    async def enter(self, build: str, digest: bytes, sender: str) -> Held | None:
        """Hold a build that was submitted, once another of its id is decided.

        Returns:
            None where the same build runs here.

        Raises:
            InvalidBuild: ``running``, ``busy`` or ``shutting_down``; or the refusal of the same build,
                decided meanwhile.
        """
        while (holder := self._held.get(build)) is not None:
            await holder.decided.wait()
            if holder.refusal is not None and holder.digest == digest:
                raise refused(*holder.refusal)
            if holder.walk is not None:
                if holder.digest != digest:
                    raise refused("running", f"build {build} is running, with other content")
                return None
        self.check_room()
        self._check_share(sender)
        self._reported.pop(build, None)
        return self.hold(Held(build, digest, sender))

    async def reserve(self, build: str) -> Held | None:
        """Hold the id of a build while its log is being read.

        Returns:
            None where the build runs here.
        """
        while (known := self._held.get(build)) is not None:
            await known.decided.wait()
            if known.walk is not None:
                return None
        return self.hold(Held(build, reserved=True))

    def check_room(self) -> None:
        """Check that one more build can be held.

        Raises:
            InvalidBuild: ``busy`` or ``shutting_down``.
        """
        if self._stopping:
            raise shutting_down()
        if len(self._held) >= self._max_builds:
            raise refused(
                "busy", f"{doing(len(self._held), 'build', 'be')} running; max_builds is {self._max_builds}"
            )

    def _check_share(self, sender: str) -> None:
        """Check that a sender leaves some room for builds of senders with few."""
        most, free, theirs = self._max_builds, self._max_builds - len(self._held), self._senders[sender]
        if not may_have_one_more(theirs, free, most):
            text = f"{doing(theirs, 'build', 'be')} running that you have sent"
            raise refused("busy", f"{text}; of max_builds={most} the last {free} are kept for other senders")

    def hold(self, held: Held) -> Held:
        """Hold a build whose id is not held."""
        self._held[held.build] = held
        self._senders[held.sender] += 1
        return held

    def begin(self, held: Held, walk: Walk, track: Track) -> None:
        """Note that a held build begins to run."""
        held.walk, held.track = walk, track
        held.reserved = False
        self._components += len(walk.plan.phases)
        self._bytes += walk.plan.prepared.size
        held.decided.set()

    def remove(self, held: Held) -> bool:
        """Stop holding a build; returns whether it was held. Idempotent."""
        held.decided.set()
        held.gone.set()
        if held.walk is not None:
            self._components -= len(held.walk.plan.phases)
            self._bytes -= held.walk.plan.prepared.size
        held.walk = held.track = None
        if self._held.get(held.build) is not held:
            return False
        del self._held[held.build]
        self._senders[held.sender] -= 1
        if not self._senders[held.sender]:
            del self._senders[held.sender]
        if not self._busy:
            self._idle.set()
        return True

    def note_reported(self, build: str) -> None:
        """Remember that a run of this build has ended here."""
        self._reported[build] = None
        if len(self._reported) > _MOST_REPORTED:
            self._reported.popitem(last=False)

    def note_beat(self, call: Call) -> None:
        """Note that a heartbeat of an attempt in flight has said something new."""
        held = self._held.get(call.request.build)
        if held is not None and held.track is not None:
            held.track.beat(call)

    def note_outage(self, seconds: float) -> None:
        """Note that nothing could be done for so many seconds, by which deadlines have moved."""
        if seconds < _WORTH_NOTING:
            return
        for held in self._held.values():
            if held.walk is None or held.track is None:
                continue
            if held.walk.plan.phases.in_flight or held.walk.gates.asking:
                held.track.timings.note_outage(seconds)
                held.walk.note_outage(seconds)

    def send_again(self) -> None:
        """Send requests again that were lost with a connection, where the settings say so."""
        for walk in self.walks():
            walk.send_again()

    def send_nothing(self) -> None:
        """Send nothing more for the builds that run, or that are still taken."""
        self._quiet = True
        for walk in self.walks():
            walk.stop()

    def refuse_new(self) -> None:
        """Take no more builds, after `send_nothing`."""
        self._stopping = True

    async def until_idle(self) -> None:
        """Wait until no build is held but those whose logs are being read; the caller sets the deadline."""
        while self._busy:
            self._idle = trio.Event()
            await self._idle.wait()

    @property
    def _busy(self) -> bool:
        return any(not held.reserved for held in self._held.values())
