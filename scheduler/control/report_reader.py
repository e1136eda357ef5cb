"""Reads the reports of builds that have ended, and keeps them for a while, since a report comes in pages.

A report may be many times a message. Reports are read, split and searched for secrets one at a time, in a
thread. If the asker's deadline passes meanwhile, that continues, and the report is there when they ask again.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

import trio
from attrs import define, field

from scheduler.control.finder import BuildFinder
from scheduler.control.report_pages import ReportView
from scheduler.control.report_sources import ReportSource, StoredReport
from scheduler.control.suggestions import suggest
from scheduler.definition.secrets.masking import Secrets
from scheduler.definition.splitting import SplitBuild, split_build
from scheduler.definition.strictjson import decode_own
from scheduler.errors import InvalidJSON, Refused
from scheduler.runtime.executor import Executor
from scheduler.runtime.yielding import yield_now
from scheduler.supervision.roster import Roster
from scheduler.text import printable

_MOST_BYTES: Final = 96 * 1024 * 1024
"""Bytes of the reports that are kept."""
_ENTRY_BYTES: Final = 100
"""Bytes of an entry beside its text."""
_KEPT: Final = 60.0
"""Seconds that a report is kept after the last question; the last one read is kept however large it is."""
_PERIOD: Final = 5.0
"""Seconds between two searches for reports to be dropped."""
_MOST_RUNS: Final = 10
"""Runs that a message lists one by one."""
_MOST_READING: Final = 8
"""Reports that are being read, or wait for that."""
_STOPS: Final = "the scheduler stops: ask another one, or again"


@define(eq=False)
class ReadReport:
    """Report that was read."""

    stored: StoredReport
    """The report; its text is left out."""
    split: SplitBuild
    whole: ReportView
    """View with all secrets."""
    revision: object
    """Revision of the build's reports when it was read."""
    last: bool
    """Whether it is that of the last run."""
    size: int
    """Bytes that it takes, about."""
    asked: float
    """Time of the last question, Trio clock, seconds."""
    secrets: Secrets | None = None
    """Its secrets; None until they were searched for."""
    _masked: ReportView | None = None
    _known: Hashable = None
    """State of the secrets when the view was made: a further run of the build may tell more of them."""

    @property
    def masked(self) -> ReportView:
        """View with its secrets masked; they were searched for."""
        assert self.secrets is not None, "its secrets were asked for"
        known = self.secrets.known
        if self._masked is None or self._known != known:
            self._masked, self._known = ReportView(self.split, self.secrets), known
        return self._masked


@define(eq=False)
class _Reading:
    """Reading that is under way."""

    done: trio.Event = field(factory=trio.Event)
    report: ReadReport | None = None
    error: Exception | None = None


class ReportReader:
    """Reads reports; `run` has to be running.

    Args:
        builds: finds the builds.
        roster: the builds that run.
        source: source of the reports.
        executor: splits reports, and searches them for secrets, beside the loop.
    """

    def __init__(self, builds: BuildFinder, roster: Roster, source: ReportSource, executor: Executor) -> None:
        self._builds = builds
        self._roster = roster
        self._source = source
        self._executor = executor
        self._kept: OrderedDict[str, ReadReport] = OrderedDict()
        """Reports by identity, the one asked for last at the end."""
        self._under_way: dict[tuple[str, int | None, bool], _Reading] = {}
        self._turn = trio.Lock()
        self._stirred = trio.Event()
        self._nursery: trio.Nursery | None = None

    def __len__(self) -> int:
        return len(self._kept)

    async def run(self) -> None:
        """Read reports, and drop those that are not asked for any more; never returns."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                while True:
                    await self._stirred.wait()
                    await trio.sleep(_PERIOD)
                    await self._trim()
                    if not self._kept:
                        self._stirred = trio.Event()
            finally:
                self._nursery = None

    async def read(self, build: str, run: int | None, identity: str | None, *, masked: bool) -> ReadReport:
        """Return the report of a run of a build.

        Args:
            build: its id.
            run: number of the run; None for the last one.
            identity: identity of the report, if it was asked for before.
            masked: whether its secrets are to be known.

        Raises:
            Refused: there is none, or none yet, or another one than before; the message says what to do.
            StoreError, BusError: it cannot be read.
        """
        report = None if identity is None else self._kept.get(identity)
        if report is None or report.stored.build != build or (masked and report.secrets is None):
            report = await self._await_reading(build, run, masked=masked)
        if identity is not None and report.stored.identity != identity:
            text = f"the report of {build} is another one by now: begin with its first page again"
            raise Refused("conflict", text)
        report.asked = trio.current_time()
        self._kept.move_to_end(report.stored.identity)
        return report

    async def _await_reading(self, build: str, run: int | None, *, masked: bool) -> ReadReport:
        """Wait for a report to be read; that goes on if the caller is cancelled."""
        key = build, run, masked
        reading = self._under_way.get(key)
        if reading is None:
            if len(self._under_way) >= _MOST_READING:
                raise Refused("unavailable", "many other reports are being read: ask again")
            if self._nursery is None:
                raise Refused("unavailable", _STOPS)
            reading = self._under_way[key] = _Reading()
            self._nursery.start_soon(self._read, key, reading)
        await reading.done.wait()
        if reading.error is not None:
            raise reading.error.with_traceback(None)
        if reading.report is None:
            raise Refused("unavailable", _STOPS)
        return reading.report

    async def _read(self, key: tuple[str, int | None, bool], reading: _Reading) -> None:
        build, run, masked = key
        try:
            await self._check_ended(build, run)
            async with self._turn:
                reading.report = await self._read_now(build, run, masked=masked)
        except Exception as error:  # noqa: BLE001 - it is raised to whoever waits
            reading.error = error
        finally:
            del self._under_way[key]
            reading.done.set()

    async def _read_now(self, build: str, run: int | None, *, masked: bool) -> ReadReport:
        revision = await self._source.revision(build)
        report = self._known(build, run, revision)
        if report is None:
            stored = await self._source.fetch(build, run)
            if stored is None:
                raise await self._missing(build, run)
            report = await self._take_apart(stored, revision, last=run is None)
            self._kept[stored.identity] = report
            self._stirred.set()
        if masked and report.secrets is None:
            report.secrets = await self._secrets_of(report)
        report.asked = trio.current_time()
        self._kept[report.stored.identity] = report
        self._kept.move_to_end(report.stored.identity)
        await self._trim()
        return report

    async def _check_ended(self, build: str, run: int | None) -> None:
        """Refuse to look for the report of a run that has not ended."""
        seen = self._roster.see(build)
        if seen is None or (run is not None and run < seen.plan.state.run):
            return
        if run is not None and run > seen.plan.state.run:
            raise Refused("unknown", f"{build} has no run {run}: the last one is run {seen.plan.state.run}")
        if await self._builds.keeps_running(build):
            if seen.over:
                why = f" ({seen.report_waits})" if seen.report_waits else ""
                raise Refused("unavailable", f"the report of {build} is on its way{why}: ask again")
            cure = "`scheduler wait` waits for its end, `scheduler watch` follows it"
            raise Refused("conflict", f"{build} is {seen.status}, and its report comes at the end: {cure}")

    def _known(self, build: str, run: int | None, revision: object) -> ReadReport | None:
        for report in self._kept.values():
            wanted = report.last if run is None else report.stored.run == run
            if wanted and report.stored.build == build and report.revision == revision:
                return report
        return None

    async def _missing(self, build: str, run: int | None) -> Refused:
        """Return the refusal of a report that there is none of."""
        runs = await self._source.runs(build)
        if run is not None and runs:
            return Refused(
                "unknown", f"{build} has no report of run {run}; there is that of run {_listed(runs)}"
            )
        if why := self._roster.quarantined.get(build):
            cure = "`scheduler release` has it loaded again"
            return Refused("conflict", f"{build} is quarantined, and has no report: {why}; {cure}")
        known = {*self._roster.ids(), *await self._source.builds()} - {build}
        limits = self._source.limits(build)
        if limits and self._roster.has_reported(build):
            return Refused("unknown", f"the report of {build} is not kept any more: {limits}")
        try:
            seen = await self._builds.find(build)
        except Refused:
            near = await suggest(build, sorted(known), "there are")
            more = f" ({limits})" if limits else ""
            return Refused("unknown", f"there is no report of a build {build!r} here{more}{near}")
        if not seen.over:
            return Refused(
                "conflict", f"{build} has not ended, and is not held here: it may be taken up soon"
            )
        return Refused("unknown", f"{build} has ended ({seen.status}), and its report is not kept any more")

    async def _take_apart(self, stored: StoredReport, revision: object, *, last: bool) -> ReadReport:
        data = stored.data
        try:
            split = await self._executor.run("reports", lambda: split_build(data), long=True)
        except InvalidJSON as error:
            text = f"the report of {stored.build} cannot be read: {printable(str(error), 500)}"
            raise Refused("internal", text) from None
        size = split.size + _ENTRY_BYTES * sum(map(len, split.lists.values()))
        view = ReportView(split, None)
        return ReadReport(stored.without_data(), split, view, revision, last, size, trio.current_time())

    async def _secrets_of(self, report: ReadReport) -> Secrets:
        """Return the secrets of a build: those in its report, and those that its log tells.

        An error may quote a secret that stands nowhere else in the report: it was sent, or belonged to a
        component that is deleted.
        """
        if (known := report.stored.secrets) is not None:
            return known
        try:
            secrets = (await self._builds.find(report.stored.build)).plan.prepared.secrets
        except Refused:
            secrets = Secrets()
        await self._executor.run("reports", lambda: _learn(secrets, report.split), long=True)
        return secrets

    async def _trim(self) -> None:
        while self._kept:
            identity, first = next(iter(self._kept.items()))
            fits = len(self._kept) == 1 or sum(one.size for one in self._kept.values()) <= _MOST_BYTES
            if fits and first.asked > trio.current_time() - _KEPT:
                return
            del self._kept[identity], first
            await trio.lowlevel.checkpoint()


def _listed(runs: list[int]) -> str:
    """Return the numbers of runs, for people."""
    first = runs[:-_MOST_RUNS]
    shown = ", ".join(map(str, runs[-_MOST_RUNS:]))
    return f"{first[0]} to {first[-1]}, {shown}" if first else shown


def _learn(secrets: Secrets, report: SplitBuild) -> None:
    """Learn the secrets in a report; for a thread."""
    fields = {name: decode_own(bytes(raw)) for name, raw in report.fields.items()}
    secrets.add(fields, literal=False, at_once=None)
    for name in ("components", "changes"):
        for raw in report.lists.get(name, ()):
            yield_now()
            component = decode_own(bytes(raw))
            if isinstance(component, dict):
                secrets.add(component, literal=False, at_once=None)
