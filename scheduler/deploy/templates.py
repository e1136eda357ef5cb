"""Files that ship for deployments, with the parts that depend on what was asked for."""

from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, Final

from jinja2 import Environment, FunctionLoader, StrictUndefined

_MONITORING: Final = {"dashboard": "dashboard.json", "alerts": "alerts.yml"}


def monitoring_file(part: str) -> Traversable:
    """Return a file for monitoring that ships with the package: ``dashboard`` or ``alerts``."""
    return resources.files("scheduler") / "monitoring" / _MONITORING[part]


def render(name: str, **values: Any) -> str:
    """Return a file of ``shipped/``.

    Args:
        name: its name.
        values: what its expressions and conditions name; all of them have to be there.
    """
    return _ENVIRONMENT.get_template(name).render(**values)


def _source(name: str) -> str:
    return resources.files("scheduler.deploy").joinpath("shipped", name).read_text(encoding="utf-8")


# Nothing of it is HTML; and all that comes in is ours.
_ENVIRONMENT: Final = Environment(  # noqa: S701
    loader=FunctionLoader(_source),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
