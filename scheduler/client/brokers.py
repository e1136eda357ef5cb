"""Finds embedded brokers of this user that run on this computer.

Such a broker leaves a record in this user's data directory while it runs (`scheduler.local.announcing`):
where its data is and on which URL it listens. Its token stays in its own directory. A record counts only
while the lock of that directory is held, which the kernel releases when the broker ends, however that ends;
a record of another user, or that others could have written, never counts.
"""

import contextlib
import fcntl
import os
import platform
import re
from hashlib import blake2b
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
from attrs import field, frozen

from scheduler.config import default_data_dir
from scheduler.runtime.logger import Logger
from scheduler.runtime.private_files import is_private, read_private

LOCK_FILE: Final = "lock"
"""File of a data directory that a running broker holds the lock of."""
TOKEN_FILE: Final = "token"  # noqa: S105 - a name
"""File of a data directory with the broker's token."""
_AT_MOST: Final = 200
"""Records that are looked at."""
_URL: Final = re.compile(r"nats://127\.0\.0\.1:[1-9][0-9]{0,4}")

log = Logger()


class BrokerRecord(msgspec.Struct, forbid_unknown_fields=False):
    """Record of a running broker, as it is in the file."""

    url: str
    data_dir: str
    pid: int
    host: str
    """Name of the computer: a home directory may be that of several."""
    serves: bool
    """Whether its scheduler serves until it is stopped, and does not end with a build."""


@frozen
class Found:
    """Embedded broker of this user that runs on this computer."""

    url: str
    """URL without the token."""
    token: str = field(repr=False)
    pid: int
    """Process of its scheduler."""
    data_dir: Path
    serves: bool
    """Whether its scheduler serves until it is stopped, and does not end with a build."""

    def __str__(self) -> str:
        return f"{self.url} (data in {str(self.data_dir)!r}, pid {self.pid})"


Brokers: TypeAlias = tuple[Found, ...]


def records_dir() -> Path:
    """Return the directory of this user's records."""
    return default_data_dir() / "running"


def record_path(data_dir: Path) -> Path:
    """Return the file with the record of the broker that has this data directory."""
    digest = blake2b(os.fsencode(data_dir.absolute()), digest_size=8).hexdigest()
    return records_dir() / f"{digest}.json"


def forget_record(data_dir: Path) -> None:
    """Remove the record that a broker which was killed has left; to be called by who has its lock now."""
    with contextlib.suppress(OSError):
        record_path(data_dir).unlink()


def running_brokers() -> Brokers:
    """Return this user's embedded brokers that run on this computer; remove the records of others."""
    folder = records_dir()
    try:
        if not is_private(folder.stat()):
            log.warning("records of brokers are not read: others may write them", folder=str(folder))
            return ()
        paths = sorted(folder.glob("*.json"))[:_AT_MOST]
    except OSError:
        return ()
    return tuple(found for path in paths if (found := _look_at(path)) is not None)


def choose(brokers: Brokers, *, serving: bool = False) -> Brokers:
    """Return the broker to take, or those that it cannot be told of; none where there is none.

    One whose scheduler serves goes before one that ends with its build, and the one of the default data
    directory before all others.

    Args:
        brokers: those that run.
        serving: whether only one whose scheduler serves will do.
    """
    lasting = tuple(broker for broker in brokers if broker.serves)
    left = lasting if serving or lasting else brokers
    default = default_data_dir().absolute()
    return tuple(broker for broker in left if broker.data_dir == default) or left


def _look_at(path: Path) -> Found | None:
    try:
        text = read_private(path) or ""
        record = msgspec.json.decode(text.encode(), type=BrokerRecord)
        data_dir = Path(record.data_dir)
        if record.host != platform.node() or not _URL.fullmatch(record.url) or not data_dir.is_absolute():
            return None
        # What holds the lock may be another broker by now, which removes the record and leaves its own.
        if not _is_locked(data_dir, path) or read_private(path) != text:
            return None
        token = (read_private(data_dir / TOKEN_FILE) or "").strip()
    except (OSError, ValueError) as error:
        log.debug("a record of a broker is ignored", file=str(path), why=str(error))
        return None
    return Found(record.url, token, record.pid, data_dir, record.serves) if token else None


def _is_locked(data_dir: Path, record: Path) -> bool:
    """Tell whether a broker runs on a data directory; if not, remove its record.

    Raises:
        OSError: that cannot be told.
    """
    try:
        if data_dir.stat().st_uid != os.geteuid():
            return False
        lock = os.open(data_dir / LOCK_FILE, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        record.unlink(missing_ok=True)
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        # No broker can start here and leave a record meanwhile.
        record.unlink(missing_ok=True)
        return False
    finally:
        os.close(lock)
