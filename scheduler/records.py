"""The format of a build's log: what stands in a record, as JSON, and what its headers say."""

from attrs import frozen


@frozen
class Position:
    """A place in the stream of replies: up to here everything was seen."""

    sequence: int = 0
    time: int = 0
    """The server's stamp of the message there, in nanoseconds since 1970; 0 where there is none."""
