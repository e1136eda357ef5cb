"""Records of embedded brokers that run: who finds which."""

import fcntl
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from scheduler.bus.options import BusOptions
from scheduler.client.brokers import Found, choose, records_dir, running_brokers
from scheduler.commands.reaching import reach
from scheduler.config import Settings
from scheduler.errors import BrokerError
from scheduler.local.announcing import announced
from scheduler.local.broker import Broker, open_broker
from scheduler.runtime.private_files import read_private, write_private

TOKEN = "0123456789abcdef"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without any data so far."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "scheduler"


@contextmanager
def running(data_dir: Path, port: int = 4300, *, serves: bool = True) -> Iterator[Broker]:
    """Hold the lock of a data directory and its record, as a broker does."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    (data_dir / "token").write_text(f"{TOKEN}\n")
    (data_dir / "token").chmod(0o600)
    url = f"nats://127.0.0.1:{port}"
    broker = Broker(url, TOKEN, os.getpid(), data_dir, data_dir / "log", trio.Event())
    with (data_dir / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with announced(broker, serves=serves):
            yield broker


def records() -> list[Path]:
    return list(records_dir().glob("*"))


def change(**fields: Any) -> None:
    (record,) = records()
    record.write_text(json.dumps(json.loads(record.read_text()) | fields))


def test_a_broker_is_found_while_it_runs(tmp_path: Path) -> None:
    """With its token, which is in no record and in no text; afterwards nothing is left."""
    with running(tmp_path / "a"):
        (found,) = running_brokers()
        assert (found.url, found.token, found.pid) == ("nats://127.0.0.1:4300", TOKEN, os.getpid())
        assert TOKEN not in records()[0].read_text() + repr(found) + str(found)
        assert records()[0].stat().st_mode & 0o077 == records_dir().stat().st_mode & 0o077 == 0
    assert records() == []


def test_a_record_that_a_crash_left_behind_is_not_followed(tmp_path: Path) -> None:
    """The kernel has released the lock; the record is removed, also where all its data is."""
    with running(tmp_path / "a"):
        text = records()[0].read_text()
    stale = records_dir() / "stale.json"
    for vanish in (False, True):
        stale.write_text(text)
        stale.chmod(0o600)
        if vanish:
            (tmp_path / "a" / "lock").unlink()
        assert running_brokers() == ()
        assert records() == []


async def test_a_start_forgets_what_a_crash_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its server is ready: who asks meanwhile is not sent to the old port with the token."""
    with running(tmp_path / "a"):
        text = records()[0].read_text()
        path = records()[0]
    path.write_text(text)
    path.chmod(0o600)
    seen: list[list[Path]] = []

    def spawn(*_: Any) -> Any:
        seen.append(records())
        raise BrokerError("no server")

    monkeypatch.setattr("scheduler.local.broker._spawn", spawn)
    with pytest.raises(BrokerError, match="no server"):
        async with open_broker(tmp_path / "a"):
            pass
    assert seen == [[]]


@pytest.mark.parametrize(
    "fields",
    [
        {"host": platform.node() + "-other"},
        {"url": "nats://10.0.0.1:4222"},
        {"url": "nats://127.0.0.1:4222@evil:1"},
        {"data_dir": "relative"},
        {"pid": "none"},
    ],
)
def test_a_record_of_elsewhere_is_ignored(tmp_path: Path, fields: dict[str, Any]) -> None:
    """Another computer with the same home directory, or what no broker of ours writes."""
    with running(tmp_path / "a"):
        change(**fields)
        assert running_brokers() == ()


@pytest.mark.parametrize("loose", ["folder", "record", "token"])
def test_what_others_could_have_written_is_ignored(tmp_path: Path, loose: str) -> None:
    """The directory of the records, a record, or the token."""
    with running(tmp_path / "a"):
        path = {"folder": records_dir(), "record": records()[0], "token": tmp_path / "a" / "token"}[loose]
        path.chmod(path.stat().st_mode | 0o020)
        assert running_brokers() == ()


def test_a_broker_of_another_user_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where we could read its files, as root can."""
    with running(tmp_path / "a"):
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        assert running_brokers() == ()


def test_a_file_of_another_user_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its mode."""
    write_private(tmp_path / "file", "theirs")
    assert read_private(tmp_path / "file") == "theirs"
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(PermissionError, match="not this user's alone"):
        read_private(tmp_path / "file")


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """Neither as a record nor as a token."""
    with running(tmp_path / "a"):
        token = tmp_path / "a" / "token"
        token.rename(tmp_path / "elsewhere")
        token.symlink_to(tmp_path / "elsewhere")
        assert running_brokers() == ()


def test_a_broker_that_cannot_leave_a_record_runs_nevertheless(tmp_path: Path, home: Path) -> None:
    """And says what does not work."""
    home.parent.mkdir()
    home.write_text("in the way")
    with capture_logs() as logs, running(tmp_path / "a"):
        pass
    assert [entry["event"] for entry in logs] == ["other commands will not find this broker by themselves"]


def broker(name: str, *, serves: bool = True, folder: Path = Path("/data")) -> Found:
    return Found(f"nats://127.0.0.1:{name}", TOKEN, 1, folder, serves)


def test_which_of_several_brokers_is_taken(home: Path) -> None:
    """One that serves, and of these the one of the default data directory; else all are left."""
    first, second = broker("1"), broker("2")
    short, default = broker("3", serves=False), broker("4", folder=home)
    assert choose(()) == ()
    assert choose((short,)) == (short,)
    assert choose((short,), serving=True) == ()
    assert choose((short, first)) == (first,)
    assert choose((first, default, second)) == (default,)
    assert choose((first, second)) == (first, second)


def test_a_command_takes_the_broker_that_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With its token; it says so where that is asked for."""
    with running(tmp_path / "a"):
        found = reach(Settings(), aloud=True).bus
    assert (found.servers, found.token) == (("nats://127.0.0.1:4300",), TOKEN)
    said = capsys.readouterr().err
    assert "using the embedded broker at nats://127.0.0.1:4300" in said
    assert TOKEN not in said


@pytest.mark.parametrize(
    "options",
    [
        BusOptions(("nats://127.0.0.1:4222",)),
        BusOptions(("nats://me:secret@127.0.0.1:4300",)),
        BusOptions(("nats://127.0.0.1:4300",), token="mine"),
        BusOptions(("nats://127.0.0.1:4300", "nats://127.0.0.1:4301")),
    ],
)
def test_what_is_configured_goes_first(tmp_path: Path, options: BusOptions) -> None:
    """Also the address that is the default anyway."""
    with running(tmp_path / "a"):
        assert reach(Settings(bus=options)).bus == options


def test_the_url_of_an_embedded_broker_is_enough(tmp_path: Path) -> None:
    """Its token is added, so that one of several can be chosen."""
    with running(tmp_path / "a"), running(tmp_path / "b", 4301):
        chosen = reach(Settings(bus=BusOptions(("nats://127.0.0.1:4301",)))).bus
    assert chosen.token == TOKEN


def test_several_brokers_are_named(tmp_path: Path) -> None:
    """With their URLs and directories, and how to choose."""
    with (
        running(tmp_path / "a"),
        running(tmp_path / "b", 4301),
        pytest.raises(BrokerError, match="2 embedded brokers run here; choose one with --nats-url") as it,
    ):
        reach(Settings())
    assert all(part in str(it.value) for part in ("127.0.0.1:4300", "127.0.0.1:4301", "/a'", "/b'"))


def test_without_any_broker_the_failure_says_where_one_was_looked_for() -> None:
    """The address is the default one."""
    settings = reach(Settings())
    assert settings.bus.servers == Settings().bus.servers
    assert str(records_dir()) in settings.bus.origin


def test_with_a_broker_of_its_own_a_command_looks_for_none(tmp_path: Path) -> None:
    """`--embedded` is a choice."""
    with running(tmp_path / "a"):
        assert reach(Settings(embedded=True)) == Settings(embedded=True)
