"""Limits for the content of a build, as one frozen value (WIRE: "Limits")."""

from typing import Final

from attrs import frozen

from scheduler.setting import Range, Section, setting

_KIBIBYTE: Final = 1_024
_MEBIBYTE: Final = 1_024 * _KIBIBYTE
_MILLION: Final = Range(1, 1_000_000)


@frozen
class Limits:
    """Limits, each a setting with the same name; a build over one is refused with its name and value."""

    max_changes: int = setting(10_000, "Components that a build may change.", Section.LIMITS, _MILLION)
    max_components: int = setting(
        100_000, "Existing components that a build may list.", Section.LIMITS, _MILLION
    )
    max_edges: int = setting(100_000, "Edges of a build.", Section.LIMITS, Range(1, 10_000_000))
    max_depth: int = setting(
        64,
        "Levels of nesting in JSON.",
        Section.LIMITS,
        # A component stands three levels deep in its build. The parsers recurse: the stack is the bound.
        Range(4, 256),
    )
    """Counted in any incoming JSON."""
    max_digits: int = setting(
        300,
        "Digits of a whole number.",
        Section.LIMITS,
        # CPython refuses to read integers of more than 4,300 digits.
        Range(20, 4_300),
    )
    """Counted in any incoming JSON."""
    max_component_bytes: int = setting(
        256 * _KIBIBYTE,
        "Bytes of a submitted component.",
        Section.LIMITS,
        Range(_KIBIBYTE, 64 * _MEBIBYTE),
        more="A reply may be larger.",
    )
    max_definition_bytes: int = setting(
        64 * _MEBIBYTE,
        "Bytes of a build from the object store.",
        Section.LIMITS,
        Range(_KIBIBYTE, 1_024 * _MEBIBYTE),
    )
    """The broker limits all others."""
    max_id_bytes: int = setting(
        512,
        "Bytes of a component's id.",
        Section.LIMITS,
        # Ids travel in a header, percent-encoded, thrice as long, beside which the body needs room.
        Range(16, 4_096),
    )
    max_template_nodes: int = setting(
        50_000,
        "Nodes of all expressions of a build together.",
        Section.LIMITS,
        Range(1, 10_000_000),
        more="A reference is one, too.",
    )
    max_error_bytes: int = setting(
        64 * _KIBIBYTE,
        "Bytes after which an error text is cut.",
        Section.LIMITS,
        Range(128, 8 * _MEBIBYTE),
        more="A mark shows where.",
    )


DEFAULT_LIMITS = Limits()
