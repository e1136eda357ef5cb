"""Records of what was done: the contract of the port, and what a file adds to it."""

# ruff: noqa: ASYNC220, ASYNC240 - the file is local, and the process prints at once

import sqlite3
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from scheduler.connectors import Begun, Busy, Completed, MemoryStore, Store
from scheduler.connectors.sqlite import SQLiteStore
from scheduler.errors import RecordError

Make = Callable[..., Any]
BUS: Any = None
"""Bus for records that do not use it."""


class Clock:
    """A clock that a test sets."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["memory", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Make a store of each kind, with its bounds."""

    def make(**options: Any) -> Store:
        return (
            MemoryStore(**options) if request.param == "memory" else SQLiteStore(tmp_path / "r.db", **options)
        )

    return make


async def test_a_success_is_remembered(make: Make) -> None:
    """What was completed is answered with its reply, and nothing else is."""
    store = make()
    async with store.open(BUS):
        assert await store.begin("k", "1") == Begun()
        await store.complete("k", b"reply")
        assert await store.begin("k", "2") == Completed(b"reply")
        assert await store.begin("other", "1") == Begun()


async def test_a_failure_is_forgotten(make: Make) -> None:
    """The next attempt begins as the first one did."""
    store = make()
    async with store.open(BUS):
        await store.begin("k", "1")
        await store.forget("k")
        await store.forget("k")
        assert await store.begin("k", "2") == Begun()


async def test_a_success_outlives_what_fails_later(make: Make) -> None:
    """To forget what was begun is not to forget what was done."""
    store = make()
    async with store.open(BUS):
        await store.begin("k", "1")
        await store.complete("k", b"reply")
        await store.forget("k")
        assert await store.begin("k", "2") == Completed(b"reply")


async def test_a_success_is_forgotten_after_its_time(make: Make) -> None:
    """Seven days by default; a build does not live that long."""
    clock = Clock()
    store = make(longest_kept=100.0, clock=clock)
    async with store.open(BUS):
        await store.begin("k", "1")
        await store.complete("k", b"reply")
        clock.now += 99
        assert await store.begin("k", "2") == Completed(b"reply")
        clock.now += 2
        assert await store.begin("k", "3") == Begun()


async def test_the_oldest_successes_go_first_where_there_are_too_many(make: Make) -> None:
    """A record has a bound, and what is begun is not forgotten for it."""
    clock = Clock()
    store = make(most_kept=3, clock=clock)
    async with store.open(BUS):
        await store.begin("begun", "1")
        for number in range(201):
            clock.now += 1
            await store.complete(f"k{number}", b"reply")
    async with store.open(BUS):
        kept = [n for n in range(201) if isinstance(await store.begin(f"k{n}", "2"), Completed)]
    assert kept == [198, 199, 200]


async def test_the_oldest_successes_go_first_where_they_are_too_large(make: Make) -> None:
    """The bound in bytes holds as well."""
    clock = Clock()
    store = make(most_bytes=2_500, clock=clock)
    async with store.open(BUS):
        for number in range(201):
            clock.now += 1
            await store.complete(f"k{number}", b"x" * 1_000)
    async with store.open(BUS):
        kept = [n for n in range(201) if isinstance(await store.begin(f"k{n}", "2"), Completed)]
    assert kept == [199, 200]


async def test_what_a_living_process_began_is_its_own(tmp_path: Path) -> None:
    """Another one that shares the file waits for it, and does not ask for its attempts."""
    one, other = SQLiteStore(tmp_path / "r.db"), SQLiteStore(tmp_path / "r.db")
    async with one.open(BUS), other.open(BUS):
        await one.begin("k", "1")
        assert await other.begin("k", "2") == Busy()
        assert await other.unanswered() == []
        await other.forget("k")
        assert await other.begin("k", "2") == Busy()
        await one.complete("k", b"reply")
        assert await other.begin("k", "2") == Completed(b"reply")


async def test_what_a_process_that_ended_began_is_anybodys(tmp_path: Path) -> None:
    """The next one begins again and knows that it does; and can ask for the attempt."""
    one, other = SQLiteStore(tmp_path / "r.db"), SQLiteStore(tmp_path / "r.db")
    async with one.open(BUS):
        await one.begin("k", "1")
        await one.begin("done", "2")
        await one.complete("done", b"reply")
    async with other.open(BUS):
        assert await other.unanswered() == ["1"]
        assert await other.begin("k", "1") == Begun(repeated=True)
        assert await other.unanswered() == []


async def test_a_killed_process_counts_as_gone_at_once(tmp_path: Path) -> None:
    """Its lock is the kernel's, which lets go of it."""
    script = textwrap.dedent(
        """
        import sys, trio
        from scheduler.connectors.sqlite import SQLiteStore

        async def main():
            store = SQLiteStore(sys.argv[1])
            async with store.open(None):
                await store.begin("k", "1")
                print("begun", flush=True)
                await trio.sleep_forever()

        trio.run(main)
        """
    )
    path = tmp_path / "r.db"
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert await trio.to_thread.run_sync(process.stdout.readline) == b"begun\n"
        store = SQLiteStore(path)
        async with store.open(BUS):
            assert await store.begin("k", "2") == Busy()
            process.kill()
            process.wait()
            assert await store.unanswered() == ["1"]
            assert await store.begin("k", "2") == Begun(repeated=True)
    assert [file.name for file in tmp_path.glob("*.live")] == []


async def test_what_long_gone_processes_began_is_cleared_away(tmp_path: Path) -> None:
    """It is asked for no more, and leaves the file."""
    clock = Clock()
    store = SQLiteStore(tmp_path / "r.db", clock=clock, longest_kept=100)
    async with store.open(BUS):
        await store.begin("k", "1")
    clock.now += 101
    async with store.open(BUS):
        assert await store.unanswered() == []
    with sqlite3.connect(tmp_path / "r.db") as connection:
        assert connection.execute("SELECT COUNT(*) FROM work").fetchone() == (0,)
    connection.close()


async def test_the_file_is_this_users_alone(tmp_path: Path) -> None:
    """Replies may hold secrets."""
    store = SQLiteStore(tmp_path / "r.db")
    async with store.open(BUS):
        await store.complete("k", b"reply")
        modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert modes == {0o600}


def make_another(path: Path) -> None:
    """Make a database of another program."""
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE other (x)")
    connection.close()


@pytest.mark.parametrize(
    ("prepare", "text"),
    [
        (lambda path: path.write_bytes(b"no database, and long enough for one" * 100), "not a database"),
        (lambda path: path.mkdir(), "directory"),
        (make_another, "something else"),
    ],
)  # fmt: skip
async def test_a_file_of_something_else_is_left_alone(
    tmp_path: Path, prepare: Callable[[Path], Any], text: str
) -> None:
    """The message names the file and the reason."""
    path = tmp_path / "r.db"
    prepare(path)
    with pytest.raises(RecordError, match=text) as caught:
        async with SQLiteStore(path).open(BUS):
            pass
    assert str(path) in str(caught.value)


async def test_a_file_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    """A record that cannot be read is no reason to act twice."""
    path = tmp_path / "r.db"
    async with SQLiteStore(path).open(BUS):
        pass
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(RecordError, match="another version"):
        async with SQLiteStore(path).open(BUS):
            pass


async def test_many_steps_at_a_time_are_taken_one_by_one(tmp_path: Path) -> None:
    """Two processes with twenty tasks each begin each key once."""
    stores = [SQLiteStore(tmp_path / "r.db") for _ in range(2)]
    begun: list[str] = []

    async def work(store: SQLiteStore, number: int) -> None:
        key = f"k{number % 10}"
        if isinstance(await store.begin(key, f"{number}"), Begun):
            begun.append(key)
            await store.complete(key, b"reply")

    async with stores[0].open(BUS), stores[1].open(BUS):
        with trio.fail_after(60):
            for store in stores:
                await store.begin("warm", "0")
            async with trio.open_nursery() as nursery:
                for number in range(20):
                    # One store asks for a key at a time only, as its connector joins attempts.
                    if number < 10:
                        nursery.start_soon(work, stores[0], number)
                    else:
                        nursery.start_soon(work, stores[1], number)
    assert sorted(begun) == [f"k{number}" for number in range(10)]
