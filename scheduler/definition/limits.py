"""Limits for the content of a build, as one frozen value (WIRE: "Limits")."""

from attrs import frozen


@frozen
class Limits:
    """Limits, each a setting with the same name; a build over one is refused with its name and value."""

    max_changes: int = 10_000
    max_components: int = 100_000
    """Most components that exist; they may be more than the changes."""
    max_edges: int = 100_000
    max_depth: int = 64
    """Most levels of nesting in any incoming JSON."""
    max_digits: int = 300
    """Most digits of an integer in any incoming JSON."""
    max_component_bytes: int = 256 * 1024
    """Most bytes of a submitted component; a connector may return a larger one."""
    max_definition_bytes: int = 64 * 1024 * 1024
    """Most bytes of a build submitted through the object store; the broker limits all others."""
    max_id_bytes: int = 512
    max_template_nodes: int = 50_000
    """Most nodes of parsed expressions and references in one build."""
    max_error_bytes: int = 64 * 1024
    """Bytes at which error texts are cut, with a mark."""


DEFAULT_LIMITS = Limits()
