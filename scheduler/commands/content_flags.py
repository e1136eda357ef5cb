"""Flags for what a build says beside its file: id, values in its ``options``, and the part that is wanted.

They have no variables: one would apply to every build, and these hold for one.
"""

from typing import Annotated, Any

from attrs import field, frozen
from cyclopts import Parameter

from scheduler.commands.completers import (
    Completer,
    build_files,
    build_ids,
    component_ids,
    option_paths,
)
from scheduler.commands.parameters import CONTENT


def _flag(name: str, text: str, completer: Completer | None = None, **more: Any) -> Parameter:
    return Parameter(
        name=name, help=text, negative="", group=CONTENT, show_default=False, completer=completer, **more
    )


@Parameter(name="*")
@frozen
class ContentFlags:
    """Flags as they were given; their texts are not read yet."""

    id: Annotated[
        str | None,
        _flag("--id", "Id of the build; auto: one with the time [default: the file's].", build_ids),
    ] = None
    set: Annotated[
        tuple[str, ...],
        _flag(
            "--set",
            "Value in the build's options: size=3, tags.env=prod; JSON or a text; repeatable.",
            option_paths,
        ),
    ] = field(default=(), repr=False)
    set_string: Annotated[
        tuple[str, ...], _flag("--set-string", "The same, and the value is a text whatever it looks like.")
    ] = field(default=(), repr=False)
    values: Annotated[
        tuple[str, ...],
        _flag(
            "--values",
            "File with values for its options, JSON or YAML; - for standard input; repeatable.",
            build_files,
            allow_leading_hyphen=True,
        ),
    ] = ()
    target: Annotated[
        tuple[str, ...],
        _flag("--target", "Only this component and all it needs; or a pattern; repeatable.", component_ids),
    ] = ()
    exclude: Annotated[
        tuple[str, ...],
        _flag("--exclude", "All but this component; or a pattern, as 'vm::*'; repeatable.", component_ids),
    ] = ()

    @property
    def given(self) -> str | None:
        """Name of a flag that was given; None where none was."""
        flags = {
            "--id": self.id,
            "--set": self.set,
            "--set-string": self.set_string,
            "--values": self.values,
            "--target": self.target,
            "--exclude": self.exclude,
        }
        return next((flag for flag, value in flags.items() if value), None)


CONTENT_DEFAULTS = ContentFlags()
"""Flags when none is given."""
