"""``scheduler deploy``: files with which three brokers and three schedulers are run."""

import os
import sys
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from scheduler.commands.asking import option
from scheduler.commands.output import write_output
from scheduler.commands.saying import complain
from scheduler.deploy.files import (
    CERTIFICATES,
    KEYS,
    PRINTED_BY,
    Extras,
    Kind,
    all_files,
    public_files,
    words_of,
)
from scheduler.deploy.keys import BadKey, make_keys
from scheduler.errors import InvalidSettings

_PRIVATE: Final = 0o700
_READABLE: Final = 0o644
"""Mode of files without secrets, whatever the process's mask: services read them as users of their own."""
_NAMED: Final = 5
"""Files that are there already, of which a complaint names so many."""


def deploy(
    kind: Annotated[Kind, Parameter(help="What the files are for.")],
    /,
    *,
    tls: Annotated[bool, option("Have brokers and clients prove who they are by certificates.")] = False,
    page: Annotated[bool, option("Have the schedulers serve the page, to whoever has the token.")] = False,
    output: Annotated[Path | None, option("Write the files into this folder, and the keys.")] = None,
    force: Annotated[bool, option("Overwrite files, but no keys.")] = False,
) -> int:
    """Print files that deploy three brokers and three schedulers, or write them into a folder."""
    extras = Extras(tls=tls, page=page)
    if page and kind == "nats":
        raise InvalidSettings("--page: brokers alone have no page; ask for another kind of files")
    if output is None:
        if force:
            raise InvalidSettings("--force: nothing is overwritten without --output")
        texts = public_files(kind, extras)
        sys.stdout.write("\n".join(_shown(name, text) for name, text in texts.items()))
        complain("--output FOLDER writes these as files, with keys for all users")
        return 0
    return _write(kind, extras, output, force=force)


def _shown(name: str, text: str) -> str:
    if name in PRINTED_BY:
        return f"# ---- {name}: printed by `{PRINTED_BY[name]}`\n"
    return f"# ---- {name}\n{text}"


def _write(kind: Kind, extras: Extras, folder: Path, *, force: bool) -> int:
    try:
        keys = make_keys(lambda name: _read(folder / KEYS / name), words=words_of(kind, extras))
    except BadKey as error:
        raise InvalidSettings(f"--output: the key {str(folder / KEYS / error.args[0])!r} is none") from None
    files = all_files(kind, keys, os.getuid(), os.getgid(), extras)
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
        for name in new:
            (folder / name).parent.mkdir(exist_ok=True)
    except OSError as error:
        raise InvalidSettings(f"--output: {str(error.filename)!r} cannot be made: {error.strerror}") from None
    for name, file in new.items():
        if not write_output(folder / name, (file.text.encode(),), private=file.secret):
            return 1
        if not file.secret:
            (folder / name).chmod(_READABLE)
        if file.owner is not None:
            os.chown(folder / name, *file.owner)
    complain(f"written: {folder}, {len(new)} files; what is in {KEYS}/ and broker.env is secret")
    if extras.tls and not _is_there(folder / CERTIFICATES):
        complain(f"certificates.sh, run in {folder}, makes the certificates and their private keys")
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
