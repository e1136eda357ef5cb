"""Builds to be measured, and the connector's replies for their components.

The builds are those of ``scheduler demo`` (`scheduler.local.generate`): about 450 bytes a component, and two
references in each component with dependencies, one as ``$(...)`` and one as ``{{ }}``.
"""

from collections.abc import Iterator
from itertools import count
from typing import Any

import msgspec

from scheduler.local.generate import KINDS, PROVIDER, Shape, generate

SUBJECTS = tuple(f"{kind}.create.{PROVIDER}" for kind in KINDS)
"""Subscriptions of the connector. ``*.create.*`` would also match the reports."""
ACTION = "build.create"
BIG_ACTION = "build.import"
"""Action of a build that runs beside others: its report reaches only its submitter."""
SINGLE = ("vpc::node-00000", "vpc.create.aws")
"""First component of every build, and the subject of its request."""

_OUTPUT = b"aws-0123456789abcdef"
_CHAINS = 10
_numbers = count(1)


def make(shape: Shape, size: int, *, action: str = ACTION) -> dict[str, Any]:
    """Make a build with a new id."""
    build = generate(size, shape=shape, build=f"bench-{shape}-{size}-{next(_numbers)}")
    return {**build, "action": action}


def make_chain(length: int) -> dict[str, Any]:
    """Make one chain: the first of ten side by side."""
    build = make(Shape.CHAINS, length * _CHAINS)
    build["changes"] = build["changes"][::_CHAINS]
    kept = {change["_component_id"] for change in build["changes"]} | {"start", "end"}
    build["edges"] = [
        edge for edge in build["edges"] if edge["source"] in kept and edge["destination"] in kept
    ]
    return build


def encode(build: dict[str, Any]) -> bytes:
    """Encode a build for submission."""
    return msgspec.json.encode(build)


def requests(build: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """List subject and body of every request of a build, with the size that the scheduler sends."""
    for change in build["changes"]:
        body = {**change, "_state": "running"}
        if "parent_id" in body:
            body["parent_id"] = _OUTPUT.decode()
            body["user_data"] = f"join {_OUTPUT.decode()} as {body['name']}"
        yield f"{change['_component']}.create.{PROVIDER}", msgspec.json.encode(body)


def answer(request: bytes) -> bytes:
    """Make a connector's reply to a request: completed, with the cloud's id."""
    return request.replace(b'"_state":"running"', b'"_state":"completed"').replace(
        b'_aws_id":""', b'_aws_id":"%b"' % _OUTPUT
    )
