"""How references are read: what the service decides, not a build.

They stand apart from `scheduler.definition.template`, so that a command can name them in its flags without
loading what compiles references.
"""

from enum import StrEnum


class Templates(StrEnum):
    """Which forms of references there are."""

    ALL = "all"
    ERNEST = "ernest"
    """``$(path)`` only: ``{{ }}`` is plain text."""


class OnUnresolved(StrEnum):
    """What becomes of a ``$(path)`` that leads to nothing, or to empty text."""

    ERROR = "error"
    KEEP = "keep"
    """It goes out as it stands, as Ernest's scheduler did. Otherwise empty text is a value like others."""
