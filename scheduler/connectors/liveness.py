"""Which processes of one machine live: each holds a lock on a file of its own, which the kernel releases.

So a process that was killed counts as gone at once, and one that was stopped for a while does not.
"""

import contextlib
import fcntl
import os
import secrets
from pathlib import Path
from typing import Final

_SUFFIX: Final = ".live"


class Liveness:
    """Sign of life of this process beside a file, and the question whether others give one.

    Args:
        path: file that the processes share; the locks are files beside it.
    """

    def __init__(self, path: Path) -> None:
        self.owner = secrets.token_hex(8)
        """Name of this process, drawn anew each time."""
        self._path = path
        self._file = -1

    def hold(self) -> None:
        """Give the sign from now on.

        Raises:
            OSError: the file cannot be made or locked.
        """
        self._file = os.open(self._of(self.owner), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        # Nobody else knows the name yet.
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> None:
        """Give it no more. Idempotent."""
        file, self._file = self._file, -1
        if file >= 0:
            self._of(self.owner).unlink(missing_ok=True)
            os.close(file)

    def is_alive(self, owner: str) -> bool:
        """Whether a process lives; the files of those that do not are removed.

        Raises:
            OSError: its file cannot be looked at.
        """
        path = self._of(owner)
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        return False

    def _of(self, owner: str) -> Path:
        return self._path.with_name(f"{self._path.name}.{owner}{_SUFFIX}")
