"""``scheduler asyncapi``: the AsyncAPI document of all subjects, for tools and other languages."""

import sys
from typing import Annotated

import msgspec

from scheduler.asyncapi.document import asyncapi as make
from scheduler.commands.parameters import switch
from scheduler.definition.strictjson import encode


def asyncapi(
    *,
    json: Annotated[bool, switch("json", "Print JSON instead of YAML.")] = False,
) -> int:
    """Print the AsyncAPI document of all subjects."""
    document = make()
    # Written once as JSON, no two places share an object, so that YAML has no aliases.
    written = encode(document)
    if json:
        sys.stdout.write(f"{msgspec.json.format(written, indent=2).decode()}\n")
        return 0
    import yaml  # noqa: PLC0415 - it takes longer to load than all else here

    sys.stdout.write(
        yaml.safe_dump(msgspec.json.decode(written), sort_keys=False, allow_unicode=True, width=100)
    )
    return 0
