"""Previews of builds."""

from typing import Any

from scheduler.definition.rules import parse_limits
from scheduler.forecast.durations import Durations
from scheduler.forecast.preview import Preview, preview
from support.builds import prepare


def previewed(
    document: dict[str, Any], *, limits: str = "", cap: int | None = None, **seconds: float
) -> Preview:
    durations = Durations([(f"{kind}.*.*", value) for kind, value in seconds.items()])
    return preview(prepare(document), durations, parse_limits(limits), cap=cap)
