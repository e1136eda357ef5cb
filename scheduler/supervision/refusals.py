"""Refusals of builds that have nothing to do with their content."""

from scheduler.errors import InvalidBuild, Problem


def refused(code: str, text: str) -> InvalidBuild:
    """Return the refusal of a whole build, with one reason."""
    return InvalidBuild(code, [Problem("", text)])


def shutting_down() -> InvalidBuild:
    """Return the refusal of a build that comes while the scheduler stops."""
    return refused("shutting_down", "the scheduler is shutting down")
