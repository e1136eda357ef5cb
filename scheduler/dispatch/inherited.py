"""Ways in which a reply to a request of an earlier process may come."""

from attrs import frozen


@frozen
class Inherited:
    """Further ways for the reply to a request that an earlier process has sent."""

    old: str = ""
    """Token of its reply subject, where that is one of a version before these had an owner."""
    heard: tuple[str, ...] = ()
    """Subjects that its reply and its heartbeats may come in on, as `Connectors.hear` returned them."""
