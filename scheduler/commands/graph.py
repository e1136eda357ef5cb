"""``scheduler graph FILE|BUILD``: a build's graph as a picture, or as text for a drawing program."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from cyclopts import Parameter

from scheduler.bus import Bus
from scheduler.client.ask import get_build
from scheduler.client.lenient import objects
from scheduler.commands.asking import option, run_asking
from scheduler.commands.completers import ENDINGS, builds_or_files, components
from scheduler.commands.content_flags import CONTENT_DEFAULTS, ContentFlags
from scheduler.commands.files import STANDARD_INPUT, BuildAction
from scheduler.commands.flags import (
    BROKER_DEFAULTS,
    QUIET_LOG_DEFAULTS,
    BrokerFlags,
    QuietLogFlags,
    settings_of,
)
from scheduler.commands.saying import complain
from scheduler.commands.service_flags import BUILD_DEFAULTS, BuildFlags
from scheduler.display.drawing import Drawing, collapsed, dot, drawing_of, drawing_of_build, mermaid, svg
from scheduler.display.drawing.mermaid import MOST_EDGES as MERMAID_EDGES
from scheduler.display.drawing.mermaid import MOST_NODES as MERMAID_NODES
from scheduler.display.drawing.model import around as part_around
from scheduler.display.drawing.svg import MOST_EDGES, MOST_NODES
from scheduler.errors import InvalidDrawing, InvalidSettings
from scheduler.text import count, printable

Format: TypeAlias = Literal["dot", "mermaid", "svg"]
_WRITERS = {"dot": dot, "mermaid": mermaid, "svg": svg}
_BOUNDS = {"mermaid": (MERMAID_NODES, MERMAID_EDGES), "svg": (MOST_NODES, MOST_EDGES)}
"""Largest numbers of nodes and edges; programs that read DOT have their own limits."""


def graph(
    build: Annotated[
        str,
        Parameter(
            help="File with a build as JSON or YAML (- for standard input), or a build's id.",
            allow_leading_hyphen=True,
            completer=builds_or_files,
        ),
    ],
    /,
    *,
    action: BuildAction = None,
    format: Annotated[Format, option("dot, mermaid or svg [default: dot].")] = "dot",  # noqa: A002
    output: Annotated[Path | None, option("Write the drawing to this file.")] = None,
    around: Annotated[
        str | None, option("Draw only what is around this component.", completer=components)
    ] = None,
    depth: Annotated[int, option("How many edges around it [default: 2].")] = 2,
    content: ContentFlags = CONTENT_DEFAULTS,
    limits: BuildFlags = BUILD_DEFAULTS,
    broker: BrokerFlags = BROKER_DEFAULTS,
    log: QuietLogFlags = QUIET_LOG_DEFAULTS,
) -> int:
    """Draw a build as DOT, Mermaid or SVG."""
    if not 0 <= depth <= _DEEPEST:
        raise InvalidSettings(f"--depth: {depth} is not a whole number from 0 to {_DEEPEST:,}")
    show = partial(_show, format=format, output=output, component=around, depth=depth)
    if is_file(build):
        from scheduler.commands.checking import read_checked  # noqa: PLC0415 - a build's id does without

        checked = read_checked(build, settings_of(limits), action, content)
        if checked is None:
            return 1
        return show(drawing_of_build(checked.prepared.build, checked.prepared.graph))
    if content.given is not None:
        raise InvalidSettings(f"{content.given} is for a build in a file, and there is no file {build!r}")

    async def ask(bus: Bus) -> int:
        answer = await get_build(bus, build, graph=True)
        return show(drawing_of(answer, objects(answer.get("components"))))

    return run_asking(broker, log, ask, json=False)


_DEEPEST = 10_000


def is_file(name: str) -> bool:
    """Tell whether this is a file, or looks too much like one to be a build's id."""
    if name.startswith("-") or name == STANDARD_INPUT:
        return True
    return name.endswith(ENDINGS) or "/" in name or Path(name).is_file()


def _show(drawing: Drawing, *, format: Format, output: Path | None, component: str | None, depth: int) -> int:  # noqa: A002
    if component is not None:
        part = part_around(drawing, component, depth)
        if part is None:
            complain(f"{printable(component)} is not one of its {count(len(drawing.nodes), 'component')}")
            return 1
        drawing = part
    if format in _BOUNDS:
        nodes, edges = _BOUNDS[format]
        smaller = collapsed(drawing, nodes=nodes, edges=edges)
        if smaller is None:
            complain(
                f"{count(len(drawing.nodes), 'component')} cannot be drawn with at most {nodes:,} nodes: draw"
                " a part with --around COMPONENT, or use --format dot"
            )
            return 1
        if smaller is not drawing:
            complain(smaller.note)
        drawing = smaller
    try:
        written = _WRITERS[format](drawing)
    except InvalidDrawing as error:
        complain(f"{error}; --format dot has no such limit")
        return 1
    if output is None:
        sys.stdout.write(written)
        return 0
    try:
        output.write_text(written, encoding="utf-8")
    except OSError as error:
        complain(f"cannot write {str(output)!r}: {error.strerror}")
        return 1
    return 0
