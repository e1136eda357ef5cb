"""Plain edges: those with nothing but two ends and a length, as nearly all are.

A build has more edges than components. These are read many at a time, which takes a fifth of the general way.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, TypeAlias

import msgspec

from scheduler.definition.model import Edge
from scheduler.definition.strictjson import Raw, encode

_SMALL = 2**53
_Id: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]


class _PlainEdge(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    source: _Id
    destination: _Id
    length: Annotated[int, msgspec.Meta(gt=-_SMALL, lt=_SMALL)]


_decode_plain_edges = msgspec.json.Decoder(list[_PlainEdge]).decode


def read_plain_edges(raws: Sequence[Raw], share: Callable[[str, str], str]) -> list[Edge] | None:
    """Read edges; None if one of them is not plain.

    Args:
        raws: their JSON.
        share: function that returns the one copy of an id that is kept.
    """
    try:
        plain = _decode_plain_edges(b"[" + b",".join(raws) + b"]")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    edges = []
    for one in plain:
        source, destination = one.source, one.destination
        edges.append(Edge(share(source, source), share(destination, destination), one.length))
    return edges


def digest_text(edges: Sequence[Edge]) -> bytes:
    """Return plain edges' part of the digest; every edge is either always plain, or never."""
    return encode([[edge.destination, edge.length, edge.source] for edge in edges])[1:-1] + b","
