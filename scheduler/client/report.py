"""Fetches the report of a build that has ended, whole or one value of it, from a scheduler.

The scheduler reads the store, which nobody else may read. It masks secrets, unless they are asked for on a
subject of its own. The text of a report is never decoded here: decoded it would take twenty times the memory.
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

import msgspec
import trio
from attrs import define, field
from msgspec import UNSET, Raw, UnsetType

from scheduler.bus import Bus
from scheduler.client.ask import PAGE, Document, ask_as
from scheduler.client.repeating import PAGE_OF_A_REPORT, QUESTION, Pauses
from scheduler.errors import SteeringError

LISTS: Final = ("components", "changes", "edges")
"""Lists of a report, in the order in which their entries are counted."""
_SLOW: Final = 20.0
"""Seconds after which the answer "ask again" means that a large report is still being read."""
_PATIENCE: Final = 600.0
"""Seconds for a page that a scheduler asks to be asked for again."""


class _Page(msgspec.Struct):
    """Page of a report, or a part of it; what the answer holds of it stays JSON text."""

    run: int
    status: str
    identity: str
    masked: bool = False
    build: Raw | UnsetType = UNSET
    components: Raw | UnsetType = UNSET
    changes: Raw | UnsetType = UNSET
    edges: Raw | UnsetType = UNSET
    next: int | None = None
    component: Raw | UnsetType = UNSET
    value: Raw | UnsetType = UNSET


@define
class FetchedReport:
    """Report of a run, as JSON text."""

    run: int
    status: str
    """``done``, ``errored`` or ``cancelled``."""
    masked: bool = False
    """Whether something in it is masked."""
    build: bytes = field(default=b"{}", repr=False)
    """Fields of the build itself."""
    lists: dict[str, list[bytes]] = field(factory=dict, repr=False)
    """Entries by list, in parts without brackets."""

    def pieces(self) -> Iterator[bytes]:
        """Yield its text in pieces."""
        mark = b"" if self.build == b"{}" else b","
        yield self.build[:-1]
        for name in LISTS:
            if name in self.lists:
                yield mark + b'"%b":[' % name.encode()
                yield b",".join(self.lists[name])
                yield b"]"
                mark = b","
        yield b"}"

    def add(self, page: _Page) -> None:
        """Add the entries of a page."""
        self.masked |= page.masked
        for name in LISTS:
            text = getattr(page, name)
            if text is not UNSET:
                entries = self.lists.setdefault(name, [])
                if inside := bytes(text).strip()[1:-1].strip():
                    entries.append(inside)


async def fetch_report(
    bus: Bus, build: str, run: int | None = None, *, secrets: bool = False
) -> FetchedReport:
    """Return the report of a run of a build.

    Args:
        bus: the connection.
        build: its id.
        run: number of the run; None for the last one.
        secrets: whether to ask for secrets; not everybody may.

    Raises:
        SteeringError: there is none, or none yet; this user may not ask; or no answer came in time, with code
            ``silent``.
        BusError: the bus cannot be used.
    """
    report: FetchedReport | None = None
    async for page in _pages(bus, build, run, secrets=secrets):
        if report is None:
            report = FetchedReport(page.run, page.status)
            report.build = b"{}" if page.build is UNSET else bytes(page.build)
        report.add(page)
    assert report is not None, "there is a first page"
    return report


async def _pages(bus: Bus, build: str, run: int | None, *, secrets: bool) -> AsyncIterator[_Page]:
    question: Document = {"id": build, "limit": PAGE} | ({} if run is None else {"run": run})
    start = 0
    while True:
        page = await _ask(bus, question | {"from": start}, secrets=secrets)
        yield page
        # Each page has to begin after the one before it, or this would never end.
        if page.next is None or page.next <= start:
            return
        start = page.next
        # Another run may end meanwhile, and its entries must not get among those of this one.
        question |= {"run": page.run, "identity": page.identity}


async def fetch_status(bus: Bus, build: str) -> str:
    """Return how the last run of a build ended: ``done``, ``errored`` or ``cancelled``.

    Raises:
        SteeringError, BusError: see `fetch_report`.
    """
    return (await _ask(bus, {"id": build, "limit": 1}, secrets=False, pauses=QUESTION)).status


async def fetch_value(
    bus: Bus,
    build: str,
    run: int | None = None,
    *,
    component: str | None = None,
    path: str | None = None,
    secrets: bool = False,
) -> tuple[bytes, bool]:
    """Return a component of a report, a field of it, or of the build itself; and whether it is masked.

    Args:
        bus: the connection.
        build: id of the build.
        run: number of the run; None for the last one.
        component: id of the component.
        path: path of the field.
        secrets: whether to ask for secrets; not everybody may.

    Raises:
        SteeringError, BusError: see `fetch_report`; or there is no such component or field.
    """
    wanted = {"run": run, "component": component, "field": path}
    question = {"id": build} | {name: value for name, value in wanted.items() if value is not None}
    page = await _ask(bus, question, secrets=secrets)
    found = page.component if path is None else page.value
    if found is UNSET:
        raise SteeringError("unreadable", "the scheduler did not answer with what it was asked for")
    return bytes(found), page.masked


async def _ask(
    bus: Bus, question: Mapping[str, Any], *, secrets: bool, pauses: Pauses = PAGE_OF_A_REPORT
) -> _Page:
    """Ask for a page, again while the scheduler is still reading the report."""
    verb = "unmasked" if secrets else "report"
    until = trio.current_time() + _PATIENCE
    while True:
        asked = trio.current_time()
        try:
            return await ask_as(bus, verb, question, _Page, pauses)
        except SteeringError as error:
            now = trio.current_time()
            if error.code != "unavailable" or now - asked < _SLOW or now > until:
                raise
