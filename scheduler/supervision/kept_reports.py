"""Keeps the last reports in memory, where no store does."""

import secrets
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from attrs import field, frozen

from scheduler.definition.secrets.masking import Secrets
from scheduler.journal.orders import Orders
from scheduler.plan.report import Report
from scheduler.text import count

MOST_REPORTS: Final = 100
MOST_BYTES: Final = 64 * 1024 * 1024
"""Bytes of all reports that are kept, with the secrets that are masked in them."""

_ORDER_BYTES: Final = 4_096
"""Bytes counted for an order of an operator."""


@frozen
class KeptReport:
    """Report as it was published."""

    run: int
    status: str
    identity: str
    """Text unlike that of any other report."""
    data: bytes = field(repr=False)
    secrets: Secrets | None = field(repr=False)
    size: int
    """Bytes that it takes, with its secrets."""
    orders: Orders = field(factory=Orders, repr=False)
    """Orders of operators about the build."""


class KeptReports:
    """Last reports by build, within a number and a size; those kept for longest are dropped first.

    Args:
        most: number of reports.
        most_bytes: bytes of all of them.
    """

    def __init__(self, most: int = MOST_REPORTS, most_bytes: int = MOST_BYTES) -> None:
        self._most = most
        self.most_bytes = most_bytes
        """Bytes of all reports, and so also of the largest that is kept."""
        self._reports: OrderedDict[str, KeptReport] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._reports)

    def __iter__(self) -> Iterator[str]:
        return iter(self._reports)

    @property
    def limits(self) -> str:
        """Limits, for people."""
        return f"the last {count(self._most, 'report')}, up to {self.most_bytes >> 20} MiB"

    def get(self, build: str) -> KeptReport | None:
        """Return the report of the last run of a build, if it is kept."""
        return self._reports.get(build)

    def keep(self, build: str, report: Report, data: bytes) -> None:
        """Keep a report, and the orders about the build, in place of an earlier one of the build."""
        self._drop(build)
        size = (
            len(data)
            + _ORDER_BYTES * len(report.orders)
            + (0 if report.secrets is None else report.secrets.size)
        )
        kept = KeptReport(
            report.run, report.status, secrets.token_hex(8), data, report.secrets, size, report.orders
        )
        if kept.size > self.most_bytes:
            return
        self._reports[build] = kept
        self._bytes += kept.size
        while len(self._reports) > self._most or self._bytes > self.most_bytes:
            self._drop(next(iter(self._reports)))

    def _drop(self, build: str) -> None:
        report = self._reports.pop(build, None)
        if report is not None:
            self._bytes -= report.size
