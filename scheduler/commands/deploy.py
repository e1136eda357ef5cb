"""``scheduler deploy``: files with which three brokers and three schedulers are run."""

import os
import sys
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from scheduler.commands.asking import option
from scheduler.commands.output import write_output
from scheduler.commands.saying import complain
from scheduler.deploy.files import KEYS, Kind, all_files, public_files
from scheduler.deploy.keys import BadKey, make_keys
from scheduler.errors import InvalidSettings

_PRIVATE: Final = 0o700
_NAMED: Final = 5
"""Files that are there already, of which a complaint names so many."""


def deploy(
    kind: Annotated[Kind, Parameter(help="What the files are for.")],
    /,
    *,
    output: Annotated[Path | None, option("Write the files into this folder, and the keys.")] = None,
    force: Annotated[bool, option("Overwrite files, but no keys.")] = False,
) -> int:
    """Print files that deploy three brokers and three schedulers, or write them into a folder."""
    if output is None:
        if force:
            raise InvalidSettings("--force: nothing is overwritten without --output")
        texts = public_files(kind)
        sys.stdout.write("\n".join(f"# ---- {name}\n{text}" for name, text in texts.items()))
        complain("--output FOLDER writes these as files, with keys for all users")
        return 0
    return _write(kind, output, force=force)


def _write(kind: Kind, folder: Path, *, force: bool) -> int:
    try:
        keys = make_keys(lambda name: _read(folder / KEYS / name))
    except BadKey as error:
        raise InvalidSettings(f"--output: the key {str(folder / KEYS / error.args[0])!r} is none") from None
    files = all_files(kind, keys, os.getuid(), os.getgid())
    # Keys that are there are those that were read: they are not written again.
    new = {name: file for name, file in files.items() if not (_is_key(name) and _is_there(folder / name))}
    there = [name for name in new if _is_there(folder / name)]
    if there and not force:
        more = f" and {len(there) - _NAMED} more" if len(there) > _NAMED else ""
        raise InvalidSettings(
            f"--output: {str(folder)!r} has {', '.join(there[:_NAMED])}{more} already; --force overwrites"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / KEYS).mkdir(mode=_PRIVATE, exist_ok=True)
    except OSError as error:
        raise InvalidSettings(f"--output: {str(error.filename)!r} cannot be made: {error.strerror}") from None
    for name, file in new.items():
        if not write_output(folder / name, (file.text.encode(),), private=file.secret):
            return 1
        if file.owner is not None:
            os.chown(folder / name, *file.owner)
    complain(f"written: {folder}, {len(new)} files; what is in {KEYS}/ and broker.env is secret")
    return 0


def _is_key(name: str) -> bool:
    return name.startswith(f"{KEYS}/")


def _is_there(path: Path) -> bool:
    return os.path.lexists(path)


def _read(path: Path) -> str | None:
    """Return the content of a file of keys; None where there is none.

    Raises:
        InvalidSettings: it cannot be read; it is never replaced.
    """
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeError) as error:
        raise InvalidSettings(f"--output: the key {str(path)!r} cannot be read: {error}") from None
