"""The two notations of a file: JSON, and YAML, which is converted to it."""

from typing import Final

from attrs import field, frozen

from scheduler.definition.limits import DEFAULT_LIMITS, Limits
from scheduler.definition.lines import Lines
from scheduler.definition.malformed import looks_like_yaml
from scheduler.definition.strictjson import split_object
from scheduler.errors import InvalidJSON

_ENDINGS: Final = (".yaml", ".yml")


@frozen
class Text:
    """A document as JSON, and the lines of its values in the file."""

    json: bytes = field(repr=False)
    lines: Lines = field(repr=False)


def read_text(name: str, data: bytes, limits: Limits = DEFAULT_LIMITS) -> Text | None:
    """Read a file in the notation that it is in; None for YAML without a value: only comments at most.

    A file is YAML if its name says so and it is no JSON object, or if it begins as no JSON does.

    Args:
        name: name of the file.
        data: its contents.
        limits: bounds on its content.

    Raises:
        InvalidYAML: it is YAML, and cannot be read; with its line. JSON is not checked here.
    """
    if not _is_yaml(name, data, limits):
        return Text(data, Lines(data))
    # Half of a command's calls read no YAML, and the parser takes a while to load.
    from scheduler.definition.strictyaml import convert  # noqa: PLC0415

    found = convert(data, limits)
    return None if found is None else Text(found.json, Lines(found.json, (found.offsets, found.lines)))


def _is_yaml(name: str, data: bytes, limits: Limits) -> bool:
    if not name.endswith(_ENDINGS):
        return looks_like_yaml(data)
    try:
        # JSON is nearly always YAML as well, but it is read a hundred times as fast.
        split_object(data, limits)
    except InvalidJSON:
        return True
    return False
