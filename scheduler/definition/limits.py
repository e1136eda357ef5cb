"""The bounds on what a build may hold, as one frozen value (WIRE: "Limits")."""

from attrs import frozen


@frozen
class Limits:
    """Each one is a setting of the same name; what is over is refused with the name and the value."""

    max_changes: int = 10_000
    max_components: int = 100_000
    """What exists may be more than what a build changes; this bounds it all the same."""
    max_edges: int = 100_000
    max_depth: int = 64
    """Levels of nesting in any JSON that comes in."""
    max_digits: int = 300
    """Digits of an integer in any JSON that comes in."""
    max_component_bytes: int = 256 * 1024
    """A submitted component; what a connector returns may be larger."""
    max_definition_bytes: int = 64 * 1024 * 1024
    """A build that is submitted by way of the object store; the broker bounds all others."""
    max_id_bytes: int = 512
    max_template_nodes: int = 50_000
    """Nodes of parsed expressions and references in one build."""
    max_error_bytes: int = 64 * 1024
    """Error texts are cut at this size, with a mark."""


DEFAULT_LIMITS = Limits()
