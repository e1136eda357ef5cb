"""Diagnosis of a broker by `scheduler doctor`, before a service depends on it.

Each module examines one aspect and adds findings to a `Diagnosis`. It removes everything that it makes on the
broker. Only `output` prints.
"""

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from attrs import Factory, asdict, define, frozen


class Level(StrEnum):
    """Level of a finding."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    """The service would run, but this broker does not support all that it promises."""
    FAILURE = "failure"
    """The service could not run."""


@frozen
class Finding:
    """Finding about the broker."""

    check: str
    """Name of the check: ``connection``, ``server``, ``messages``, ``pending``, ``permissions``,
    ``jetstream``, ``streams``, ``replicas``, ``commits``, ``disk``, ``clock`` or ``instances``."""
    level: Level
    text: str
    cure: str = ""
    """Cure, as advice to a person; every ``warning`` and ``failure`` has one."""


@define
class Diagnosis:
    """Findings about one broker."""

    url: str = ""
    version: str = ""
    findings: list[Finding] = Factory(list)
    facts: dict[str, Any] = Factory(dict)
    """Values for programs."""

    def ok(self, check: str, text: str) -> None:
        """Add a finding that is as it should be."""
        self.findings.append(Finding(check, Level.OK, text))

    def note(self, check: str, text: str, cure: str = "") -> None:
        """Add a finding that is worth knowing."""
        self.findings.append(Finding(check, Level.NOTE, text, cure))

    def warn(self, check: str, text: str, cure: str) -> None:
        """Add a finding that should be changed."""
        self.findings.append(Finding(check, Level.WARNING, text, cure))

    def fail(self, check: str, text: str, cure: str) -> None:
        """Add a finding with which the service cannot run."""
        self.findings.append(Finding(check, Level.FAILURE, text, cure))

    def count(self, level: Level) -> int:
        """Return the number of findings of a level."""
        return sum(finding.level is level for finding in self.findings)

    @property
    def healthy(self) -> bool:
        """Whether the service could run."""
        return not self.count(Level.FAILURE)

    def document(self) -> Mapping[str, Any]:
        """Return it as JSON: ``{"v": 1, "url", "version", "healthy", "findings", "facts"}``.

        A finding is ``{"check", "level", "text", "cure"}``. ``facts`` are, as far as they are known:
        ``max_payload`` (bytes); ``jetstream`` (our account, in the server's words); ``commits`` (``count``,
        ``replicas``, ``p50_ms``, ``p99_ms``, ``per_second``, ``memory_p50_ms``); ``clock``
        (``difference_ms``, the broker's minus ours, and ``error_ms``); ``instances``, those at work, each
        with ``name``, ``instance``, ``version``, ``limits`` and ``clock_ms`` (its clock minus the broker's).
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
    """Format a number of bytes: ``512 bytes``, ``1 MiB``, ``3.2 GiB``."""
    if number < 1024:
        return f"{number:.0f} bytes"
    units = ("KiB", "MiB", "GiB", "TiB")
    power = min(int(math.log(number, 1024)), len(units))
    return f"{number / 1024**power:.1f}".removesuffix(".0") + f" {units[power - 1]}"
