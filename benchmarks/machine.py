"""Describes the machine of a measurement, and the versions of its software."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from attrs import frozen

from benchmarks.processes import nats_binary
from scheduler import __version__


@frozen
class Machine:
    """Machine of a measurement."""

    cpu: str
    cores: int
    system: str
    load: float
    """Load average at the start of the measurement: the work of others."""
    python: str
    versions: dict[str, str]
    when: str

    @classmethod
    def this(cls) -> "Machine":
        """Describe this machine."""
        names = ("trio", "trio-asyncio", "nats-py", "msgspec")
        server = subprocess.run([nats_binary(), "--version"], capture_output=True, check=True, timeout=10)
        return cls(
            _cpu_model(),
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
            f"{platform.system()} {platform.release()}",
            os.getloadavg()[0],
            platform.python_version(),
            {
                "scheduler": __version__,
                **{name: version(name) for name in names},
                "nats-server": server.stdout.decode().split()[-1],
            },
            datetime.now(UTC).isoformat(timespec="seconds"),
        )


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
