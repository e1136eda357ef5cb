"""Files that commands write: whole or not at all."""

import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from scheduler.commands.saying import complain
from scheduler.errors import InvalidSettings

_PRIVATE: Final = 0o600
"""Mode of a file that nobody else may read."""
_PUBLIC: Final = 0o666
"""Mode of any other file, less what the process's mask takes away."""


def check_output(path: Path) -> None:
    """Check whether a file can be written, before the work that is to be written is done.

    Raises:
        InvalidSettings: it cannot; the message says why.
    """
    folder = path.parent
    if path.is_dir():
        raise InvalidSettings(f"--output: {str(path)!r} is a folder; name a file in it")
    if not folder.is_dir():
        raise InvalidSettings(f"--output: there is no folder {str(folder)!r}")
    if not os.access(path if _is_special(path) else folder, os.W_OK):
        raise InvalidSettings(f"--output: {str(path)!r} cannot be written: permission denied")


def write_output(path: Path, pieces: Iterable[bytes], *, private: bool) -> bool:
    """Write a file in place of an older one of its name, which stays as it is until all is written.

    A link is followed; what is no plain file, such as a pipe, is written to.

    Args:
        path: the file.
        pieces: its content, in pieces.
        private: whether nobody else may read it.

    Returns:
        Whether it was written; otherwise the reason was printed.
    """
    try:
        if _is_special(path):
            with path.open("wb") as file:
                file.writelines(pieces)
        else:
            _replace(path.resolve(), pieces, _PRIVATE if private else _PUBLIC)
    except OSError as error:
        complain(f"cannot write {str(path)!r}: {error.strerror}")
        return False
    return True


def _replace(path: Path, pieces: Iterable[bytes], mode: int) -> None:
    draft = path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}")
    try:
        # The mode from the beginning: it must not be open to others for a moment.
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _is_special(path: Path) -> bool:
    return path.exists() and not path.is_file()
