"""Figures of a service: read where they are, when somebody asks, in slices between other work."""

import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final, TypeAlias

import trio
from attrs import field, frozen

from scheduler import __version__
from scheduler.bus import Bus, Listener
from scheduler.dispatch.client import ConnectorClient
from scheduler.dispatch.slots import Slots
from scheduler.fleet.lease import RENEW_WITHIN
from scheduler.metrics import catalogue as names
from scheduler.metrics.bounding import Labels
from scheduler.metrics.catalogue import Metric
from scheduler.metrics.commits import CommitTally
from scheduler.metrics.histogram import Counted
from scheduler.metrics.tally import OUTCOMES, Tally
from scheduler.plan.phases import Phases
from scheduler.recovery.persistence import Persistence
from scheduler.runtime.pace import paced
from scheduler.web.health import Health

_LOOKED_AT: Final = 500
"""Builds that are looked at in one slice: a millisecond."""
_NO_WORD: Final = re.compile(r"[^a-z0-9]+")
MAX_IN_FLIGHT: Final = "max_in_flight"
"""Label of the limit on all requests of this instance."""

Samples: TypeAlias = list[tuple[Labels, float | Counted]]
Family: TypeAlias = tuple[Metric, Samples]
"""A metric, with a value or the content of a histogram for each of its labels' values."""


@frozen
class Figures:
    """Reads the figures of a service from its parts."""

    persistence: Persistence
    connectors: ConnectorClient
    slots: Slots
    health: Health
    connections: Mapping[str, Bus | Listener]
    """Connections to the broker, by name."""
    submissions: Counter[str] = field(factory=Counter)
    """Number of builds that came in, by ``accepted`` and ``refused``."""
    tally: Tally | None = None
    """Tally of components; None where nobody asks for it."""
    name: str = ""
    """Name of this instance."""

    @property
    def commits(self) -> CommitTally | None:
        """Tally of commits; None where the store is this process's own memory."""
        return self.persistence.store.commits

    def brief(self) -> dict[str, Any]:
        """Return the most important figures as members of a JSON document. Synchronous, and quick."""
        roster, commits = self.persistence.roster, self.commits
        return {
            "builds": len(roster),
            "components": roster.components,
            "in_flight": self.slots.taken,
            "queued": self.slots.waiters,
            "ready": not self.health.trouble(),
            **({} if commits is None else {"commits": commits.document()}),
        }

    def status(self) -> str:
        """Return one line for people: whether builds are taken, and how much there is to do."""
        brief, trouble = self.brief(), self.health.trouble()
        work = "{builds} builds, {in_flight} in flight, {queued} queued".format_map(brief)
        return f"{trouble or 'ready'}; {work}"

    async def families(self) -> AsyncIterator[Family]:
        """Yield all metrics of the service, each as it is at its moment; other tasks run in between."""
        async for family in self._of_builds():
            yield family
        async for family in self._of_queues():
            yield family
        for part in (
            self._of_components,
            self._of_requests,
            self._of_commits,
            self._of_broker,
            self._of_fleet,
        ):
            await trio.lowlevel.checkpoint()
            for family in part():
                yield family

    async def _of_builds(self) -> AsyncIterator[Family]:
        roster = self.persistence.roster
        version = (__version__, self.name, self.persistence.store.name)
        yield names.INFO, [(version, 1)]
        yield names.READY, [((), not self.health.trouble())]
        statuses: Counter[str] = Counter(running=0, paused=0, halted=0)
        # All of them, also while no build runs: a series that is missing is a gap in each graph.
        states = Counter(Phases(()).shown())
        async for walk in paced(roster.walks(), every=_LOOKED_AT):
            state = walk.plan.state
            statuses["halted" if state.halted else "paused" if state.paused else "running"] += 1
            states.update(walk.plan.phases.shown())
        statuses["quarantined"] = len(roster.quarantined)
        yield names.BUILDS, _samples(statuses)
        yield names.PHASES, _samples(states)
        begun = dict.fromkeys(("submitted", "taken_over", "retried"), 0) | roster.begun
        yield names.BEGUN, _samples(begun)
        ended = dict.fromkeys(("done", "errored", "cancelled", "left"), 0) | roster.ended
        yield names.ENDED, _samples(ended)
        yield names.SUBMISSIONS, _samples(dict.fromkeys(("accepted", "refused"), 0) | self.submissions)

    async def _of_queues(self) -> AsyncIterator[Family]:
        slots = self.slots
        limits = {MAX_IN_FLIGHT: (slots.per_instance, slots.taken, slots.waiters)}
        yield names.QUEUE, [((), slots.waiters)]
        limits |= await slots.standing()
        for place, metric in enumerate((names.LIMIT_SIZE, names.LIMIT_USED, names.LIMIT_QUEUE)):
            yield metric, [((label,), numbers[place]) for label, numbers in limits.items()]

    def _of_components(self) -> Iterator[Family]:
        if self.tally is None:
            return
        tallied = self.tally.copy()
        kinds = tallied.kinds.items()
        yield (
            names.COMPONENTS,
            [
                ((*kind, outcome), number)
                for kind, numbers in kinds
                for outcome, number in zip(OUTCOMES, numbers[: len(OUTCOMES)], strict=True)
            ],
        )
        yield names.ATTEMPTS, [(kind, numbers[-2]) for kind, numbers in kinds]
        yield names.RETRIES, [(kind, numbers[-1]) for kind, numbers in kinds]
        yield names.DURATIONS, [(pair, durations) for pair, (durations, _) in tallied.pairs.items()]
        yield names.WAITS, [(pair, waits) for pair, (_, waits) in tallied.pairs.items()]

    def _of_requests(self) -> Iterator[Family]:
        slots = self.slots
        yield names.IN_FLIGHT, [((), slots.taken)]
        yield names.BYTES_IN_FLIGHT, [((), slots.budget.in_flight)]
        dropped = {_word(reason): count for reason, count in self.connectors.dropped.items()}
        expected = dict.fromkeys(("late", "duplicate", "timed_out"), 0)
        yield names.REPLIES_DROPPED, _samples(expected | dropped)

    def _of_commits(self) -> Iterator[Family]:
        yield names.STORE_UP, [((), self.persistence.store.available)]
        commits = self.commits
        if commits is not None:
            yield names.COMMITS, [((), commits.seconds.copy())]
            yield names.COMMIT_SIZES, [((), commits.sizes.copy())]
            yield names.COMMIT_RETRIES, [((), commits.retries)]
            yield names.COMMIT_CONFLICTS, [((), commits.conflicts)]

    def _of_broker(self) -> Iterator[Family]:
        connections = self.connections.items()
        yield names.CONNECTION_UP, [((name,), one.connected) for name, one in connections]
        # The listener counts none.
        numbers = [((name,), getattr(one, "generation", None)) for name, one in connections]
        yield names.CONNECTIONS, [(labels, number) for labels, number in numbers if number is not None]

    def _of_fleet(self) -> Iterator[Family]:
        fleet, election = self.persistence.fleet, self.persistence.election
        if fleet is not None:
            standings = dict.fromkeys(("active", "draining", "gone", "lapsed"), 0)
            for member in fleet.members():
                standings["lapsed" if member.lapsed else member.lease.standing.value] += 1
            yield names.INSTANCES, _samples(standings)
        one = fleet or election
        if one is not None:
            tenure = one.keeper.tenure
            age = max(0.0, trio.current_time() - tenure.until + RENEW_WITHIN)
            # Infinite before the first renewal, and after the end.
            yield names.LEASE_AGE, [((), age)]
            yield names.LAPSES, [((), tenure.lapses)]


def _samples(numbers: Mapping[str, float]) -> Samples:
    return [((label,), number) for label, number in numbers.items()]


def _word(text: str) -> str:
    """Return a reason as a label: ``to no request that waits`` becomes ``to_no_request_that_waits``."""
    return _NO_WORD.sub("_", text.lower()).strip("_")
