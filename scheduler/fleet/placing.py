"""Placing of builds: which instance of a fleet is to own a build that has come in.

Any instance may get a build that is submitted. It goes where the fewest components are active. What an
instance knows of another is at least as old as the last renewal of its lease, so in the meantime it counts
what it has passed on itself; and each answer to that says how much is active there by now, whoever brought
it. So a burst spreads evenly, although several instances place builds at the same time.

To pass a build on costs a hop. An instance keeps it where it is as good as the best, within a margin.

Everything here is pure; `scheduler.supervision.passing` does what is decided.
"""

from collections.abc import Container, Iterable
from typing import Final

from attrs import define

from scheduler.runtime.values import Value

HERE: Final = ""
"""Key of this instance."""
_MARGIN: Final = 0.04
"""Part of the components that are active here by which others may have fewer, and a build stays here."""
_LEAST_MARGIN: Final = 8
"""Components by which others may always have fewer."""
_REST: Final = 2
"""Renewals of its lease after which an instance gets builds again that has not taken one; until then it gets
only what would be refused otherwise."""


class Report(Value, frozen=True):
    """Load of an instance as it has told it: in its lease, or in the answer to a build."""

    count: int
    """Number of renewals of its lease by then."""
    components: int
    """Components that are active there."""


class Candidate(Value, frozen=True):
    """Instance that may get a build, as its lease has it."""

    key: str
    """Its word in subjects."""
    instance: str
    """Name of its process."""
    report: Report
    takes: bool
    """Whether it takes builds: it neither drains nor is full."""


@define
class _Known:
    """Knowledge about one of the other instances."""

    instance: str
    report: Report
    takes: bool
    pending: int = 0
    """Components of the builds that are on their way there, as estimated."""
    rests_until: int = 0
    """Number of renewals up to which it gets no builds."""

    @property
    def load(self) -> int:
        return self.report.components + self.pending


class Placing:
    """Decides where builds go."""

    def __init__(self) -> None:
        self._others: dict[str, _Known] = {}
        self._pending = 0
        """Components of the builds that are being taken here, as estimated."""

    def see(self, candidates: Iterable[Candidate]) -> None:
        """Take in the leases of all other instances that own builds."""
        kept = self._others
        self._others = {}
        for one in candidates:
            known = kept.get(one.key)
            if known is None or known.instance != one.instance:
                known = _Known(one.instance, one.report, one.takes)
            elif one.report.count > known.report.count:
                # Otherwise an answer has said something newer.
                known.report = one.report
            known.takes = one.takes
            self._others[one.key] = known

    def knows(self, key: str) -> bool:
        """Return whether an instance owns builds, by the last look."""
        return key in self._others

    def choose(self, here: int | None, tried: Container[str] = ()) -> str | None:
        """Choose the instance that is to own a build.

        Args:
            here: components that are active here; None where this instance takes none.
            tried: keys of the instances that could not take it.

        Returns:
            Its key, or `HERE`; None where there is none.
        """
        here = None if HERE in tried else here
        best: str | None = None
        least = 0
        rests = True
        for key, known in self._others.items():
            # One that could not take a build a moment ago had perhaps just begun: better than to refuse it.
            resting = known.report.count < known.rests_until
            if not known.takes or key in tried or (resting and here is not None):
                continue
            if best is None or (resting, known.load) < (rests, least):
                best, least, rests = key, known.load, resting
        if here is None:
            return best
        ours = here + self._pending
        if best is None or ours - least <= max(_LEAST_MARGIN, _MARGIN * ours):
            return HERE
        return best

    def begin(self, key: str, components: int) -> None:
        """Note that a build of about so many components is on its way to an instance."""
        if key == HERE:
            self._pending += components
        elif (known := self._others.get(key)) is not None:
            known.pending += components

    def end(self, key: str, components: int, report: Report | None = None) -> None:
        """Note that it is on its way no more.

        Args:
            key: the instance.
            components: as in `begin`.
            report: load there, as the answer says; None where there is no answer.
        """
        if key == HERE:
            self._pending -= components
            return
        known = self._others.get(key)
        if known is None:
            return
        known.pending = max(0, known.pending - components)
        if report is not None and report.count >= known.report.count:
            known.report = report

    def rest(self, key: str) -> None:
        """Note that an instance could not take a build: for some renewals it gets none."""
        known = self._others.get(key)
        if known is not None:
            known.rests_until = known.report.count + _REST


def estimate(data: bytes) -> int:
    """Estimate the number of components of a build that was not read yet; at least 1."""
    seen = data[:_SCANNED]
    found = seen.count(b'"_component_id"')
    return max(1, found * len(data) // max(1, len(seen)))


_SCANNED: Final = 256 * 1024
"""Bytes of a build that are looked at for that; this takes a tenth of a millisecond."""
