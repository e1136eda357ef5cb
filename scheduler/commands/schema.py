"""``scheduler schema``: the JSON Schema of a document, for editors and for programs that write it."""

import sys
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Annotated, Literal

from cyclopts import Parameter


def schema(document: Annotated[Literal["build", "reply"], Parameter(help="Document to describe.")], /) -> int:
    """Print the JSON Schema of a build, or of a reply."""
    sys.stdout.write(schema_file(document).read_text(encoding="utf-8"))
    return 0


def schema_file(document: str) -> Traversable:
    """Return the file that ships with the package."""
    return resources.files("scheduler") / "schemas" / f"{document}.schema.json"
