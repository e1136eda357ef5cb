"""Contract test of connectors by `scheduler check-connector`, in whatever language they are written.

`plan` and `request` say what is asked, `reading` judges what is answered, `probe` sends and listens, and
`checks` asks in an order in which one finding explains the next. Only `output` prints.
"""

from enum import StrEnum
from typing import Any

from attrs import Factory, define, frozen


class Result(StrEnum):
    """Result of a check."""

    PASSED = "pass"
    WARNING = "warn"
    """Builds run with this connector, but without what the check is about."""
    FAILED = "fail"
    SKIPPED = "skipped"


@frozen
class Check:
    """Check of a connector, with its result."""

    name: str
    result: Result
    seen: str
    cure: str = ""
    """Cure, as advice to the author of the connector; every ``warn`` and ``fail`` has one."""


@define
class Verdict:
    """Results of all checks of one connector."""

    subject: str
    build: str
    """Id that the requests named as their build."""
    checks: list[Check] = Factory(list)

    def passed(self, name: str, seen: str) -> None:
        """Add a check that found what it should."""
        self.checks.append(Check(name, Result.PASSED, seen))

    def warned(self, name: str, seen: str, cure: str) -> None:
        """Add a check that found something that should be changed."""
        self.checks.append(Check(name, Result.WARNING, seen, cure))

    def failed(self, name: str, seen: str, cure: str) -> None:
        """Add a check that found what breaks builds."""
        self.checks.append(Check(name, Result.FAILED, seen, cure))

    def skipped(self, name: str, why: str, cure: str = "") -> None:
        """Add a check that was not made."""
        self.checks.append(Check(name, Result.SKIPPED, why, cure))

    def count(self, result: Result) -> int:
        """Return the number of checks with a result."""
        return sum(check.result is result for check in self.checks)

    @property
    def sound(self) -> bool:
        """Whether no check failed."""
        return not self.count(Result.FAILED)

    def document(self) -> dict[str, Any]:
        """Return it as JSON: ``{"subject", "build", "sound", "checks"}``.

        A check is ``{"check", "result", "seen", "cure"}``.
        """
        return {
            "subject": self.subject,
            "build": self.build,
            "sound": self.sound,
            "checks": [
                {"check": one.name, "result": one.result, "seen": one.seen, "cure": one.cure}
                for one in self.checks
            ],
        }
