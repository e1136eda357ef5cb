"""``scheduler monitoring``: a dashboard for Grafana, and alert rules for Prometheus."""

import sys
from typing import Annotated, Literal

from cyclopts import Parameter

from scheduler.deploy.templates import monitoring_file


def monitoring(part: Annotated[Literal["dashboard", "alerts"], Parameter(help="File to print.")], /) -> int:
    """Print a dashboard for Grafana, or alert rules for Prometheus."""
    sys.stdout.write(monitoring_file(part).read_text(encoding="utf-8"))
    return 0
