"""``scheduler permissions``: a configuration for nats-server with the least permissions for each side."""

import sys
from collections.abc import Iterable, Iterator
from typing import Annotated

from scheduler.commands.parameters import text
from scheduler.config import parse_providers
from scheduler.jetstream.capturing import REPLIES, replies_of
from scheduler.permissions import shipped

_AFTER = f'"$JS.API.STREAM.UPDATE.{REPLIES}"\n'


def permissions(
    *,
    capture_providers: Annotated[
        str, text("capture_providers", "Add what --capture-providers of the service needs: 'aws,gcp'.")
    ] = "",
) -> int:
    """Print a broker configuration with the least permissions."""
    sys.stdout.write(read_permissions(parse_providers(capture_providers)))
    return 0


def read_permissions(providers: Iterable[str] = ()) -> str:
    """Return the shipped file, with lines for providers whose replies have a stream of their own."""
    before, after, behind = shipped().partition(_AFTER)
    indent = before[before.rfind("\n") + 1 :]
    more = "".join(f"{indent}{line}\n" for provider in providers for line in _lines(replies_of(provider)))
    return f"{before}{after}{more}{behind}"


def _lines(stream: str) -> Iterator[str]:
    api = "$JS.API"
    yield f'"{api}.STREAM.CREATE.{stream}", "{api}.STREAM.UPDATE.{stream}"'
    yield f'"{api}.STREAM.MSG.GET.{stream}", "{api}.CONSUMER.CREATE.{stream}.>"'
    yield f'"{api}.CONSUMER.MSG.NEXT.{stream}.*", "{api}.CONSUMER.DELETE.{stream}.*"'
