"""Reads a build's file, and puts over it what the flags say."""

import secrets
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from attrs import field, frozen

from scheduler.commands.content_flags import CONTENT_DEFAULTS, ContentFlags
from scheduler.commands.files import STANDARD_INPUT, note_action, read_file
from scheduler.commands.saying import complain
from scheduler.config import Settings
from scheduler.definition.ids import NOISE, base_of, new_id
from scheduler.definition.limits import Limits
from scheduler.definition.lines import Lines
from scheduler.definition.malformed import explain
from scheduler.definition.nearly import nearly
from scheduler.definition.notation import Text, read_text
from scheduler.definition.rules import OPTIONS
from scheduler.definition.strictjson import decode, kind, split_object
from scheduler.definition.validation import Prepared
from scheduler.definition.values import Overlay, ValuesFile, build_id, parse_assignment, unused
from scheduler.definition.warnings import options_read
from scheduler.errors import InvalidBuild, InvalidJSON, InvalidSettings, InvalidYAML, Problem
from scheduler.text import count, printable

AUTO: Final = "auto"
"""Word for `--id` in place of which an id is made up."""


@frozen
class Source:
    """A build's file with what was put over it."""

    name: str
    data: bytes = field(repr=False)
    """The build as JSON, as it is to be checked and submitted."""
    lines: Lines = field(repr=False)
    """Lines in the file."""
    overlay: Overlay = field(repr=False)

    def located(self, problem: Problem) -> str:
        """Return a problem with the file and line of its place, or the flag, where that is known."""
        origin = self.overlay.origin(problem.place)
        if origin is None and (line := self.lines.of(problem.place)) is not None:
            origin = f"{self.name}:{line}"
        cure = " (--id gives it one)" if problem.place == "id" and self.overlay.id is None else ""
        return f"{'' if origin is None else f'{origin}: '}{problem}{cure}"

    def complain(self, error: InvalidBuild) -> None:
        """Print every problem of the build, each with its place."""
        complain_of_problems(self.name, [self.located(one) for one in error.problems] or [str(error)])

    def warn_of_unused(self, prepared: Prepared) -> None:
        """Print a warning for each value of a flag that nothing in the build reads, with a similar name."""
        given = self.overlay.assignments
        if not given:
            return
        read = [*options_read(prepared.templates), *((name,) for name in OPTIONS)]
        wrong = set(map(tuple, unused([one.path for one in given], read)))
        names = [".".join(map(str, path)) for path in read if path]
        for one in given:
            if one.path in wrong:
                similar = nearly(".".join(one.path), names)
                cure = f"; did you mean '{similar}'?" if similar else ""
                complain(f"warning: {one.origin}: nothing in the build reads it{cure}")
            elif one.doubtful:
                complain(f"warning: {one.origin}: it is no JSON, and taken as a text")


def read_source(
    name: str, settings: Settings, action: str | None = None, content: ContentFlags = CONTENT_DEFAULTS
) -> Source | None:
    """Read a build's file; if it cannot be read, print why and return None.

    Args:
        name: its name; ``-`` is standard input.
        settings: bounds.
        action: the action given on the command line.
        content: what is put over it.

    Raises:
        InvalidSettings: a flag is wrong.
    """
    limits = settings.limits
    if [name, *content.values].count(STANDARD_INPUT) > 1:
        raise InvalidSettings("standard input (-) can be read once: give the others as files")
    assignments = [parse_assignment(one, "--set", limits=limits) for one in content.set]
    assignments += [
        parse_assignment(one, "--set-string", as_string=True, limits=limits) for one in content.set_string
    ]
    given = build_id(content.id) if content.id is not None else None
    text = _read_text(name, limits)
    if text is None:
        return None
    files = []
    for one in content.values:
        values = read_values(one, limits)
        if values is None:
            return None
        files.append(values)
    note_action(name, text.json, action)
    overlay = Overlay(made_up_id(text.json) if given == AUTO else given, tuple(files), tuple(assignments))
    return Source(printable(name), overlay.apply(text.json, limits), text.lines, overlay)


def made_up_id(data: bytes, base: str | None = None) -> str:
    """Return an id with the time that no build has, for a build as JSON.

    Args:
        data: the build.
        base: what it begins with; None: the build's own id or name.
    """
    if base is None:
        try:
            members = split_object(data)
            id_, name = (_text_in(members, key) for key in ("id", "name"))
        except InvalidJSON:
            id_, name = None, None
        base = base_of(id_, name)
    return new_id(base, datetime.now(UTC), secrets.randbelow(NOISE))


def complain_of_problems(name: str, problems: Sequence[str]) -> None:
    """Print problems that are text already."""
    complain(f"{printable(name)} has {count(len(problems), 'problem')}:")
    list_lines(problems)


def list_lines(lines: Iterable[str]) -> None:
    """Print lines below a complaint."""
    sys.stderr.write("".join(f"  {printable(line)}\n" for line in lines))
    sys.stderr.flush()


def _text_in(members: dict[str, msgspec.Raw], key: str) -> Any:
    return decode(members[key]) if key in members else None


def _read_text(name: str, limits: Limits) -> Text | None:
    """Read a file as JSON; print why that fails and return None, but for an empty file, which is no JSON."""
    data = read_file(name)
    if data is None:
        return None
    try:
        return read_text(name, data, limits) or Text(b"", Lines(b""))
    except InvalidYAML as error:
        column = f":{error.column}" if error.column else ""
        complain_of_problems(name, [f"{printable(name)}:{error.line}{column}: {error}"])
        return None


def read_values(name: str, limits: Limits) -> ValuesFile | None:
    """Read a file with an object, and where its values stand; if it holds none, print why and return None.

    Args:
        name: its name; ``-`` is standard input.
        limits: bounds on its content.
    """
    text = _read_text(name, limits)
    if text is None:
        return None
    try:
        values = decode(text.json, limits) if text.json.strip() else None
    except InvalidJSON as error:
        complain_of_problems(name, [explain(text.json, error.what, error.at)])
        return None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        complain(f"{printable(name)} holds {kind(values)}; values are an object, such as size: 3")
        return None
    return ValuesFile(name, values, text.lines)
