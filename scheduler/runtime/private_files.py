"""Files of the embedded broker: this user's alone, and never reached by a link."""

import contextlib
import errno
import os
import stat
from pathlib import Path

from scheduler.errors import BrokerError

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_MAX_BYTES = 65_536
"""Longest file that is read, in bytes."""


def open_file(path: Path, how: int) -> int:
    """Open a file, or make it for this user only; return its descriptor.

    Args:
        path: the file.
        how: flags of `os.open`.

    Raises:
        BrokerError: it is a link, or cannot be opened.
    """
    try:
        return os.open(path, how | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            text = f"{str(path)!r} is a link, and its target would be overwritten; remove it"
        else:
            text = f"cannot use {str(path)!r} for the broker's data: {error.strerror}"
        raise BrokerError(text) from error


def is_private(state: os.stat_result) -> bool:
    """Tell whether a file belongs to this user, and others may neither read nor write it."""
    return state.st_uid == os.geteuid() and not state.st_mode & _OTHERS


def read_private(path: Path) -> str | None:
    """Return the text of a file of this user; None if there is none.

    Raises:
        PermissionError: others may read or write it, it is another user's, or it is a link or no file.
        OSError: it cannot be read.
    """
    try:
        # What is no file must not block us.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise PermissionError(errno.EPERM, "it is a link", str(path)) from None
        raise
    try:
        state = os.fstat(file)
        if not stat.S_ISREG(state.st_mode) or not is_private(state):
            raise PermissionError(errno.EPERM, "it is not this user's alone", str(path))
        return os.read(file, _MAX_BYTES).decode(errors="replace")
    finally:
        os.close(file)


def write_private(path: Path, text: str) -> None:
    """Replace a file as a whole by one for this user only.

    Raises:
        OSError: it cannot be written.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    draft.unlink(missing_ok=True)
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(file, "w") as stream:
            stream.write(text)
            stream.flush()
            # An empty file after a power cut would be worse than none.
            os.fsync(stream.fileno())
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
