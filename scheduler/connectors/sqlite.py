"""A record in a file of SQLite, which processes of one machine may share.

Each step is one transaction, on disk before it counts (WAL, ``synchronous=FULL``), and takes about as long as
the disk needs for a flush. A component that a process began belongs to that process for as long as it lives
(`scheduler.connectors.liveness`); after that the first one that is asked for it begins again.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Final, TypeVar

import trio

from scheduler.bus import Bus
from scheduler.connectors.liveness import Liveness
from scheduler.connectors.stores import LONGEST_KEPT, MOST_KEPT, Begun, Busy, Claim, Completed
from scheduler.errors import RecordError

_T = TypeVar("_T")

MOST_BYTES_KEPT: Final = 1024 * 1024 * 1024
"""Bytes of replies that are remembered in a file."""
_APPLICATION: Final = 0x53434B31
"""Mark of our files among others of SQLite."""
_VERSION: Final = 1
_WAITING: Final = 5.0
"""Seconds to wait for another process's transaction."""
_CLOSING: Final = 5.0
"""Seconds for the step under way to end, and the file to be closed."""
_BETWEEN_EVICTIONS: Final = 200
"""Successes after which old ones are looked for."""
_SCHEMA: Final = (
    """CREATE TABLE work (key TEXT PRIMARY KEY, attempt TEXT NOT NULL, owner TEXT NOT NULL, at REAL NOT NULL,
                          size INTEGER NOT NULL DEFAULT 0, reply BLOB)""",
    "CREATE INDEX work_by_age ON work (at, size)",
    "CREATE INDEX work_unanswered ON work (at) WHERE reply IS NULL",
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {_VERSION}",
)


class SQLiteStore:
    """A `Store` in a file; for this user only, since replies may hold secrets.

    Args:
        path: the file; it is made where it is missing, its folder is not. On a local disk.
        longest_kept: seconds for which a success is remembered, and a process that is gone.
        most_kept: number of successes that are remembered; the oldest are forgotten first.
        most_bytes: bytes of their replies.
        clock: returns the time in seconds since 1970.
    """

    durable = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        longest_kept: float = LONGEST_KEPT,
        most_kept: int = MOST_KEPT,
        most_bytes: int = MOST_BYTES_KEPT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = Path(path)
        self._longest_kept = longest_kept
        self._most_kept = most_kept
        self._most_bytes = most_bytes
        self._clock = clock
        self._file: _File | None = None
        self._limiter: trio.CapacityLimiter | None = None

    @asynccontextmanager
    async def open(self, bus: Bus) -> AsyncIterator[None]:  # noqa: ARG002 - the port's
        """Open the file.

        Raises:
            RecordError: it cannot be used; the message has the reason.
        """
        if self._file is not None:
            raise RecordError(f"{str(self.path)!r} is in use by this object already: make another one")
        self._limiter = trio.CapacityLimiter(1)
        file = self._file = _File(self.path, self._clock)
        try:
            await trio.to_thread.run_sync(file.open)
            await self._run(self._evict)
            yield
        finally:
            self._file = None
            with trio.move_on_after(_CLOSING, shield=True):
                # A step that hangs in the disk keeps its thread, and not the process.
                await trio.to_thread.run_sync(file.close, abandon_on_cancel=True)

    async def begin(self, key: str, attempt: str) -> Claim:
        """See `Store.begin`."""
        return await self._run(partial(_begin, key=key, attempt=attempt, oldest=self._oldest()))

    async def complete(self, key: str, reply: bytes) -> None:
        """See `Store.complete`."""
        if await self._run(partial(_complete, key=key, reply=reply)):
            await self._run(self._evict)

    async def forget(self, key: str) -> None:
        """See `Store.forget`."""
        await self._run(partial(_forget, key=key))

    async def unanswered(self) -> Sequence[str]:
        """See `Store.unanswered`."""
        return await self._run(partial(_unanswered, oldest=self._oldest()))

    def _oldest(self) -> float:
        return self._clock() - self._longest_kept

    def _evict(self, file: "_File") -> None:
        _evict(file, self._oldest(), self._most_kept, self._most_bytes)

    async def _run(self, step: "Callable[[_File], _T]") -> _T:
        """Take a step in a thread, after those before it; it is taken also if this is cancelled."""
        file = self._file
        if file is None:
            raise RecordError(f"{str(self.path)!r} is not open")
        return await trio.to_thread.run_sync(
            partial(file.step, step), abandon_on_cancel=True, limiter=self._limiter
        )


class _File:
    """The file while it is open; used in threads, one at a time."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self.path = path
        self.clock = clock
        self.liveness = Liveness(path)
        self.completed = 0
        """Successes since the last eviction."""
        self._lock = Lock()
        self._connection: sqlite3.Connection | None = None

    def open(self) -> None:
        """Open it, and make its table if it has none.

        Raises:
            RecordError: it cannot be used.
        """
        with self._lock:
            try:
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
                self._connection = sqlite3.connect(
                    self.path, timeout=_WAITING, isolation_level=None, check_same_thread=False
                )
                self._prepare(self._connection)
                self.liveness.hold()
            except (OSError, sqlite3.Error) as error:
                self._close()
                raise RecordError(f"the record {str(self.path)!r} cannot be used: {error}") from None
            except RecordError:
                self._close()
                raise

    def close(self) -> None:
        """Close it, once the step under way has ended."""
        with self._lock:
            self._close()

    def step(self, step: "Callable[[_File], _T]") -> _T:
        """Take a step."""
        with self._lock:
            return step(self)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write in one transaction, which nothing of another process comes between."""
        connection = self._connection
        if connection is None:
            raise RecordError(f"{str(self.path)!r} is closed")
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        with self.transaction():
            application, version, tables = (
                connection.execute(question).fetchone()[0]
                for question in (
                    "PRAGMA application_id",
                    "PRAGMA user_version",
                    "SELECT COUNT(*) FROM sqlite_schema",
                )
            )
            if not tables:
                for statement in _SCHEMA:
                    connection.execute(statement)
            elif application != _APPLICATION:
                raise RecordError(f"{str(self.path)!r} is a database of something else; name another file")
            elif version != _VERSION:
                raise RecordError(
                    f"{str(self.path)!r} was written by another version ({version}); name another file"
                )

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        with contextlib.suppress(OSError):
            self.liveness.release()
        if connection is not None:
            connection.close()


def _begin(file: _File, key: str, attempt: str, oldest: float) -> Claim:
    with file.transaction() as connection:
        row = connection.execute("SELECT owner, reply, at FROM work WHERE key = ?", (key,)).fetchone()
        repeated = False
        if row is not None:
            owner, reply, at = row
            if reply is not None and at > oldest:
                return Completed(reply)
            if reply is None:
                if owner != file.liveness.owner and file.liveness.is_alive(owner):
                    return Busy()
                repeated = True
        connection.execute(
            "INSERT OR REPLACE INTO work (key, attempt, owner, at) VALUES (?, ?, ?, ?)",
            (key, attempt, file.liveness.owner, file.clock()),
        )
    return Begun(repeated)


def _complete(file: _File, key: str, reply: bytes) -> bool:
    """Record a success; return whether old ones are to be looked for."""
    with file.transaction() as connection:
        connection.execute(
            "INSERT INTO work (key, attempt, owner, at, size, reply) VALUES (?, '', ?, ?, ?, ?)"
            " ON CONFLICT (key) DO UPDATE SET at = excluded.at, size = excluded.size, reply = excluded.reply",
            (key, file.liveness.owner, file.clock(), len(reply), reply),
        )
    file.completed += 1
    if file.completed < _BETWEEN_EVICTIONS:
        return False
    file.completed = 0
    return True


def _forget(file: _File, key: str) -> None:
    with file.transaction() as connection:
        connection.execute(
            "DELETE FROM work WHERE key = ? AND reply IS NULL AND owner = ?", (key, file.liveness.owner)
        )


def _unanswered(file: _File, oldest: float) -> list[str]:
    with file.transaction() as connection:
        rows = connection.execute(
            "SELECT attempt, owner FROM work WHERE reply IS NULL AND at > ? ORDER BY at", (oldest,)
        ).fetchall()
    alive = {owner: file.liveness.is_alive(owner) for owner in {owner for _, owner in rows}}
    return [attempt for attempt, owner in rows if attempt and not alive[owner]]


def _evict(file: _File, oldest: float, most_kept: int, most_bytes: int) -> None:
    """Forget successes that are too old or too many, and what processes began that are long gone."""
    with file.transaction() as connection:
        connection.execute("DELETE FROM work WHERE reply IS NOT NULL AND at <= ?", (oldest,))
        old = connection.execute("SELECT key, owner FROM work WHERE reply IS NULL AND at <= ?", (oldest,))
        gone = [(key,) for key, owner in old.fetchall() if not file.liveness.is_alive(owner)]
        connection.executemany("DELETE FROM work WHERE key = ?", gone)
        number, size = connection.execute("SELECT COUNT(*), TOTAL(size) FROM work").fetchone()
        if number <= most_kept and size <= most_bytes:
            return
        connection.execute(
            "DELETE FROM work WHERE reply IS NOT NULL AND rowid IN (SELECT rowid FROM"
            " (SELECT rowid, COUNT(*) OVER newest AS number, SUM(size) OVER newest AS bytes"
            " FROM work WHERE reply IS NOT NULL WINDOW newest AS (ORDER BY at DESC, rowid DESC))"
            " WHERE number > ? OR bytes > ?)",
            (most_kept, most_bytes),
        )
