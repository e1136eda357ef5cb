"""Tables in ``docs/settings.md``, made of the declarations of the settings.

A table has the first sentence of each help text; a list below it has the others.

``python -m scheduler.commands.generated`` writes them into the document.
"""

import re
import textwrap
from typing import Any, Final

import attrs

from scheduler.bus.options import BusOptions
from scheduler.config import Settings
from scheduler.config.contexts import ContextOption
from scheduler.config.web import WebSettings
from scheduler.definition.limits import Limits
from scheduler.local.simulator import Behaviour
from scheduler.setting import Range, Section, Setting, flag_of, has_choices, plain, settings_in, words_of
from scheduler.text import write_duration

_HOLDERS: Final = (BusOptions, ContextOption, Settings, WebSettings, Limits, Behaviour)
_HEAD: Final = "| flag | default | allowed | |\n|---|---|---|---|\n"
_CODE: Final = re.compile(
    r"(?<!\w)'([^']+)'(?!\w)|(--[a-z][a-z-]*[a-z]|<\w+>[.\w]*\w|\$\(\.\.\.\)|\{\{ \}\})"
)
"""Parts of a help text that are shown as code: a quotation, a flag, a placeholder, a form of references."""
_TABLE: Final = re.compile(r"(?:^\|.*\n)+(?:\n(?:^(?:- |  ).*\n)+)?", re.MULTILINE)
"""Table with the list behind it."""
_IN_CODE: Final = re.compile(r"`[^`]*`")
_WIDTH: Final = 100
_UNBROKEN: Final = "\N{NO-BREAK SPACE}"
_UNITS: Final = ((1_024**4, "TiB"), (1_024**3, "GiB"), (1_024**2, "MiB"), (1_024, "KiB"))


def renewed(page: str) -> str:
    """Return the document with new tables; the first table under a section's heading is that section's.

    Args:
        page: the document as it is.

    Raises:
        ValueError: a section has no heading, or no table.
    """
    for section in Section:
        begin = page.index(f"\n## {section}\n")
        table = _TABLE.search(page, begin)
        if table is None:
            raise ValueError(section)
        page = page[: table.start()] + _block(section) + page[table.end() :]
    return page


def _block(section: Section) -> str:
    rows, notes = [], []
    for holder in _HOLDERS:
        for attribute, declared in settings_in(holder):
            if declared.section is section:
                name = declared.name or attribute.name
                flag = f"`{flag_of(name)}`"
                first, stop, rest = declared.help.partition(". ")
                if note := f"{_marked_up(rest)} {declared.more}".strip():
                    notes.append(_note(f"- {flag}: {note}"))
                default = _default(name, attribute, declared)
                cells = (flag, default, _allowed(name, attribute, declared), _marked_up(first + stop[:1]))
                rows.append(f"| {' | '.join(cells)} |\n")
    return _HEAD + "".join(rows) + ("\n" if notes else "") + "".join(notes)


def _note(text: str) -> str:
    text = _IN_CODE.sub(lambda found: found[0].replace(" ", _UNBROKEN), text)
    lines = textwrap.wrap(
        text, _WIDTH, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False
    )
    return "".join(f"{line}\n" for line in lines).replace(_UNBROKEN, " ")


def _marked_up(text: str) -> str:
    return _CODE.sub(lambda found: f"`{found[1] or found[2]}`", text)


def _default(name: str, attribute: "attrs.Attribute[Any]", declared: Setting) -> str:
    value: Any = declared.written if declared.read is not None else attribute.default
    if declared.otherwise or isinstance(value, attrs.Factory):  # type: ignore[arg-type]
        return declared.otherwise
    if declared.allowed is not None:
        return _number(name, value, declared.allowed)
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"`{value}`" if value else ""


def _number(name: str, value: float, allowed: Range) -> str:
    if allowed.duration:
        return f"`{write_duration(value)}`"
    if "bytes" in name:
        for size, unit in _UNITS:
            if value >= size and not value % size:
                return f"{plain(value // size)} {unit}"
    return plain(value)


def _allowed(name: str, attribute: "attrs.Attribute[Any]", declared: Setting) -> str:
    if declared.allowed is not None:
        ends = (_number(name, end, declared.allowed).strip("`") for end in declared.allowed[:2])
        return " to ".join(ends)
    words = words_of(attribute.type) if has_choices(attribute.type) else ()
    return ", ".join(f"`{word}`" for word in words)
