"""``scheduler monitoring``: a dashboard for Grafana, and alert rules for Prometheus."""

import sys
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Annotated, Final, Literal

from cyclopts import Parameter

_FILES: Final = {"dashboard": "dashboard.json", "alerts": "alerts.yml"}


def monitoring(part: Annotated[Literal["dashboard", "alerts"], Parameter(help="File to print.")], /) -> int:
    """Print a dashboard for Grafana, or alert rules for Prometheus."""
    sys.stdout.write(monitoring_file(part).read_text(encoding="utf-8"))
    return 0


def monitoring_file(part: str) -> Traversable:
    """Return the file that ships with the package."""
    return resources.files("scheduler") / "monitoring" / _FILES[part]
