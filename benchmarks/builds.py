"""The builds that are measured, and what the connector makes of their components.

The builds are those of ``scheduler demo`` (`scheduler.local.generate`): about 450 bytes a component, and two
references in each that depends on something, once as ``$(...)`` and once as ``{{ }}``.
"""

from collections.abc import Iterator
from itertools import count
from typing import Any

import msgspec

from scheduler.local.generate import KINDS, PROVIDER, Shape, generate

SUBJECTS = tuple(f"{kind}.create.{PROVIDER}" for kind in KINDS)
"""What the connector subscribes to. Not ``*.create.*``: that would bring it the reports as well."""
ACTION = "build.create"
BIG_ACTION = "build.import"
"""The action of a build that runs beside others: its report reaches only whoever submitted it."""
SINGLE = ("vpc::node-00000", "vpc.create.aws")
"""The first component of every build, and the subject of its request."""

_OUTPUT = b"aws-0123456789abcdef"
_CHAINS = 10
_numbers = count(1)


def make(shape: Shape, size: int, *, action: str = ACTION) -> dict[str, Any]:
    """A build with an id of its own."""
    build = generate(size, shape=shape, build=f"bench-{shape}-{size}-{next(_numbers)}")
    return {**build, "action": action}


def make_chain(length: int) -> dict[str, Any]:
    """One chain: of ten side by side the first."""
    build = make(Shape.CHAINS, length * _CHAINS)
    build["changes"] = build["changes"][::_CHAINS]
    kept = {change["_component_id"] for change in build["changes"]} | {"start", "end"}
    build["edges"] = [
        edge for edge in build["edges"] if edge["source"] in kept and edge["destination"] in kept
    ]
    return build


def encode(build: dict[str, Any]) -> bytes:
    """A build as it is submitted."""
    return msgspec.json.encode(build)


def requests(build: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Subject and body of every request of a build, of the size that the scheduler sends."""
    for change in build["changes"]:
        body = {**change, "_state": "running"}
        if "parent_id" in body:
            body["parent_id"] = _OUTPUT.decode()
            body["user_data"] = f"join {_OUTPUT.decode()} as {body['name']}"
        yield f"{change['_component']}.create.{PROVIDER}", msgspec.json.encode(body)


def answer(request: bytes) -> bytes:
    """A connector's reply to a request: completed, with the id that the cloud gave."""
    return request.replace(b'"_state":"running"', b'"_state":"completed"').replace(
        b'_aws_id":""', b'_aws_id":"%b"' % _OUTPUT
    )
