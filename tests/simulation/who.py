"""Process of the service that a task belongs to."""

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulation.processes import Process

WHO: ContextVar["Process | None"] = ContextVar("WHO", default=None)
"""The process that a task belongs to."""
