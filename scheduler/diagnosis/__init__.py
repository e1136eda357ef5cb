"""What `scheduler doctor` finds out about a broker, before a service depends on it.

Each module looks at one side and adds findings to a `Diagnosis`; whatever one of them makes on the broker, it
removes. Nothing here prints.
"""

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from attrs import Factory, asdict, define, frozen


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    """The service would run; something that it promises is not backed by this broker."""
    FAILURE = "failure"
    """The service could not run."""


@frozen
class Finding:
    """One thing that was found out."""

    check: str
    """What was looked at: ``connection``, ``server``, ``messages``, ``pending``, ``permissions``,
    ``jetstream``, ``streams``, ``replicas``, ``commits``, ``disk`` or ``clock``."""
    level: Level
    text: str
    cure: str = ""
    """What to do about it; there is one wherever the level is ``warning`` or ``failure``."""


@define
class Diagnosis:
    """Everything that was found out about one broker."""

    url: str = ""
    version: str = ""
    findings: list[Finding] = Factory(list)
    facts: dict[str, Any] = Factory(dict)
    """Numbers for programs."""

    def ok(self, check: str, text: str) -> None:
        """It is as it should be."""
        self.findings.append(Finding(check, Level.OK, text))

    def note(self, check: str, text: str, cure: str = "") -> None:
        """It is good to know."""
        self.findings.append(Finding(check, Level.NOTE, text, cure))

    def warn(self, check: str, text: str, cure: str) -> None:
        """It should be otherwise."""
        self.findings.append(Finding(check, Level.WARNING, text, cure))

    def fail(self, check: str, text: str, cure: str) -> None:
        """The service cannot run with it."""
        self.findings.append(Finding(check, Level.FAILURE, text, cure))

    def count(self, level: Level) -> int:
        """How many findings are of that level."""
        return sum(finding.level is level for finding in self.findings)

    @property
    def healthy(self) -> bool:
        """Whether the service could run."""
        return not self.count(Level.FAILURE)

    def document(self) -> Mapping[str, Any]:
        """As JSON: ``{"v": 1, "url", "version", "healthy", "findings", "facts"}``.

        A finding is ``{"check", "level", "text", "cure"}``. ``facts``, as far as they were found out:
        ``max_payload`` (bytes); ``jetstream`` (our account, in the server's words); ``commits`` (``count``,
        ``replicas``, ``p50_ms``, ``p99_ms``, ``per_second``, ``memory_p50_ms``); ``clock``
        (``difference_ms``, the broker's minus ours, and ``error_ms``).
        """
        return {
            "v": 1,
            "url": self.url,
            "version": self.version,
            "healthy": self.healthy,
            "findings": [asdict(finding) for finding in self.findings],
            "facts": self.facts,
        }


def size(number: float) -> str:
    """A number of bytes as people read it: ``512 bytes``, ``1 MiB``, ``3.2 GiB``."""
    if number < 1024:
        return f"{number:.0f} bytes"
    units = ("KiB", "MiB", "GiB", "TiB")
    power = min(int(math.log(number, 1024)), len(units))
    return f"{number / 1024**power:.1f}".removesuffix(".0") + f" {units[power - 1]}"
