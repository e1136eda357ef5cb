"""Choices of the service, not of a build, for the reading of references.

They stand apart from `scheduler.definition.template`, so that a command can name them in its flags without
loading the compiler of references.
"""

from enum import StrEnum


class Templates(StrEnum):
    """Valid forms of references."""

    ALL = "all"
    ERNEST = "ernest"
    """``$(path)`` only: ``{{ }}`` is plain text."""


class OnUnresolved(StrEnum):
    """Treatment of a ``$(path)`` that leads to nothing, or to empty text."""

    ERROR = "error"
    KEEP = "keep"
    """It is sent as it stands, as Ernest's scheduler did. Otherwise empty text is a value like any other."""
