"""``scheduler help TOPIC``: the documents that ship with the package.

A topic is a Markdown file in ``scheduler/docs``. The file's stem is its name, its first line its title, and
its second paragraph a summary in one sentence.
"""

import os
import re
import shutil
import sys
from importlib import resources
from importlib.resources.abc import Traversable
from textwrap import wrap
from typing import Annotated, Final

from cyclopts import Parameter

from scheduler.commands import completers
from scheduler.commands.catalogue import NAMES
from scheduler.commands.usage import suggestion
from scheduler.errors import InvalidSettings
from scheduler.text import printable

_SUFFIX: Final = ".md"
_SHOWN: Final = 80
"""Characters of a wrong topic that a message repeats."""
_NO_PROSE: Final = ("#", "```", "|", "<")
"""Beginnings of a paragraph that is no summary."""
_ELSEWHERE: Final = re.compile(r"\[([^\[\]]+)\]\((\w+)\.md(?:#[\w-]*)?\)")
_WITHIN: Final = re.compile(r"\[([^\[\]]+)\]\(#[\w-]*\)")
"""Links to another topic, and links within one."""


def help_(
    topic: Annotated[
        str | None, Parameter(help="Topic to show [default: list the topics].", completer=completers.topics)
    ] = None,
    /,
) -> int:
    """Show a document, or list the topics."""
    if topic is None:
        sys.stdout.write(_listing())
        return 0
    found = topics()
    if topic in found:
        _show(found[topic].read_text(encoding="utf-8"))
    else:
        raise InvalidSettings(_unknown(topic, found))
    return 0


def folder() -> Traversable:
    """Return the folder of the documents."""
    return resources.files("scheduler") / "docs"


def topics() -> dict[str, Traversable]:
    """Return the document of each topic, in the order of their names."""
    documents = folder()
    if not documents.is_dir():
        return {}
    files = sorted(documents.iterdir(), key=lambda file: file.name)
    return {file.name.removesuffix(_SUFFIX): file for file in files if file.name.endswith(_SUFFIX)}


def summary_of(document: str) -> str:
    """Return a document's summary: its second paragraph, on one line; without one, its title."""
    title, *rest = (" ".join(part.split()) for part in document.split("\n\n") if part.strip())
    summary = rest[0] if rest and not rest[0].startswith(_NO_PROSE) else title.lstrip("# ")
    return summary.replace("`", "").replace("*", "")


def summaries() -> dict[str, str]:
    """Return the summary of each topic."""
    return {name: summary_of(file.read_text(encoding="utf-8") or name) for name, file in topics().items()}


def _listing() -> str:
    found = summaries()
    if not found:
        return "This installation has no documents; scheduler --help lists the commands.\n"
    width = min(shutil.get_terminal_size().columns, 100)
    column = max(map(len, found)) + 4
    lines = ["Topics", ""]
    for name, summary in found.items():
        lines += wrap(
            summary,
            max(width, 2 * column),
            initial_indent=f"  {name}".ljust(column),
            subsequent_indent=" " * column,
            break_on_hyphens=False,
        )
    lines += ["", "scheduler help TOPIC shows one, scheduler COMMAND --help a command's flags.", ""]
    return "\n".join(lines)


def _unknown(topic: str, found: dict[str, Traversable]) -> str:
    shown = f"'{printable(topic, _SHOWN)}'"
    if topic in NAMES:
        return f"there is no topic {shown}; scheduler {topic} --help is about the command"
    if not found:
        return f"there is no topic {shown}: this installation has no documents"
    cure = suggestion(topic, found)
    return f"there is no topic {shown}{f'{cure} The' if cure else ': the'} topics are {', '.join(found)}"


def for_terminal(document: str) -> str:
    """Name the command for each link to another topic, which no terminal could open; drop links within it."""
    return _WITHIN.sub(r"\1", _ELSEWHERE.sub(r"\1 (`scheduler help \2`)", document))


def _show(document: str) -> None:
    if not sys.stdout.isatty():
        sys.stdout.write(document)
        return
    # A pipe gets the document as it is.
    from scheduler.display import Output  # noqa: PLC0415
    from scheduler.display.markdown import Document  # noqa: PLC0415

    console = Output()
    rendered = Document(for_terminal(document))
    lines = console.render_lines(rendered, pad=False)
    if len(lines) < console.height:
        console.print(rendered)
        return
    # `less` shows colors if told to; another pager may not.
    os.environ.setdefault("LESS", "-R")
    with console.pager(styles="less" in os.environ.get("PAGER", "less")):
        console.print(rendered)
