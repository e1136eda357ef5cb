"""Handlers in threads, on Trio and on asyncio: without a broker, through `Connectors.test`."""

import asyncio
import contextlib
import contextvars
import gc
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
import structlog
import trio
from support.connecting import open_connector
from support.fake_bus import FakeBus
from trio.testing import wait_all_tasks_blocked

from scheduler.connectors import Connectors, Context, Permanent


@attrs.define
class Vpc:
    name: str
    vpc_id: str = ""


@pytest.fixture
def connectors() -> Connectors:
    return Connectors("aws", timeout=10)


def test_a_plain_function_runs_in_a_thread_beside_the_loop(connectors: Connectors) -> None:
    """It may block; it gets its context, and speaks of its progress."""
    beats: list[dict[str, Any]] = []

    @connectors.create("vpc")
    def create(request: Vpc, context: Context) -> Vpc:
        assert threading.current_thread() is not threading.main_thread()
        context.progress(0.4, "attaching")
        while not any(beat.get("progress") == 0.4 for beat in beats):
            time.sleep(0.001)
        return attrs.evolve(request, vpc_id=context.component)

    reply = connectors.test("vpc.create.aws", {"name": "a", "more": 1}, on_beat=beats.append)
    assert (reply["_state"], reply["vpc_id"], reply["more"]) == ("completed", "vpc::test", 1)


def test_an_asyncio_handler_runs_on_an_ordinary_loop_of_asyncio(connectors: Connectors) -> None:
    """Streams, subprocesses, threads, tasks and timeouts work as under `asyncio.run`."""

    @connectors.create("vpc", backend="asyncio")
    async def create(request: Vpc) -> Vpc:
        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"hello")
            writer.close()

        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
            said = await reader.read()
            writer.close()
            server.close()
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", "print(1 + 1)", stdout=asyncio.subprocess.PIPE
            )
            output, _ = await process.communicate()
            task = group.create_task(asyncio.to_thread(lambda: "thread"))
        return attrs.evolve(request, vpc_id=f"{said.decode()} {output.decode().strip()} {await task}")

    assert connectors.test("vpc.create.aws", {"name": "a"})["vpc_id"] == "hello 2 thread"


def test_a_trio_handler_that_awaits_asyncio_is_told_so(connectors: Connectors) -> None:
    """The error names the handler and the cure."""

    @connectors.create("vpc")
    async def create() -> None:
        await asyncio.sleep(0.01)

    reply = connectors.test("vpc.create.aws")
    text = "create runs as a Trio function, and awaited what is asyncio's: say backend='asyncio'"
    assert text in reply["error"]


def test_a_trio_handler_that_awaits_a_future_ends_nothing_but_itself(connectors: Connectors) -> None:
    """Trio abandons such a task; the connector goes on."""

    class Foreign:
        def __await__(self) -> Any:
            yield asyncio.Future(loop=loop)

    @connectors.create("vpc")
    async def create() -> None:
        await Foreign()

    @connectors.create("subnet")
    async def other() -> None: ...

    loop = asyncio.SelectorEventLoop()
    try:
        assert "say backend='asyncio'" in connectors.test("vpc.create.aws")["error"]
        assert connectors.test("subnet.create.aws")["_state"] == "completed"
    finally:
        loop.close()


async def test_a_trio_handler_that_awaits_what_is_foreign_may_clean_up(connectors: Connectors) -> None:
    """The error is raised where it awaits, and its clean-up may await what is Trio's."""
    cleaned: list[str] = []

    @connectors.create("vpc")
    async def create() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            await trio.lowlevel.checkpoint()
            cleaned.append("up")

    assert "say backend='asyncio'" in (await connectors.test_async("vpc.create.aws"))["error"]
    assert cleaned == ["up"]


async def test_a_trio_handler_that_insists_on_what_is_foreign_is_ended(connectors: Connectors) -> None:
    """It would block the loop of all others."""
    tries: list[int] = []

    @connectors.create("vpc")
    async def create() -> None:
        while True:
            tries.append(1)
            with contextlib.suppress(TypeError):
                await asyncio.sleep(0)

    assert "say backend='asyncio'" in (await connectors.test_async("vpc.create.aws"))["error"]
    assert len(tries) == 2


async def test_the_stack_of_a_task_shows_the_handler_and_what_it_awaits(fake_bus: FakeBus) -> None:
    """Tools that tell where a connector hangs find the line."""
    connectors = Connectors("aws")

    async def dig() -> None:
        await trio.sleep_forever()

    @connectors.create("vpc")
    async def create() -> None:
        await dig()

    async with open_connector(connectors, fake_bus, drain=0.0) as peer:
        peer.ask()
        await wait_all_tasks_blocked()
        (task,) = (one for one in tasks_below(trio.lowlevel.current_root_task()) if one.name == "create")
        names = [frame.f_code.co_name for frame, _ in task.iter_await_frames()]
        assert names[-5:] == ["create", "dig", "sleep_forever", "wait_task_rescheduled", "_real_async_yield"]


def tasks_below(task: trio.lowlevel.Task | None) -> Iterator[trio.lowlevel.Task]:
    """Yield a task and all below it."""
    if task is not None:
        yield task
        for nursery in task.child_nurseries:
            for child in nursery.child_tasks:
                yield from tasks_below(child)


async def test_context_variables_of_a_handler_are_its_own(
    connectors: Connectors, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that clears what is bound for the log takes the ids from no line but its own."""

    @connectors.create("vpc")
    async def create() -> None:
        structlog.contextvars.clear_contextvars()
        await trio.lowlevel.checkpoint()
        structlog.contextvars.bind_contextvars(mine=1)
        raise ValueError

    await connectors.test_async("vpc.create.aws")
    line = next(line for line in capsys.readouterr().out.splitlines() if "failed" in line)
    assert "vpc::test" in line
    assert "mine" not in line


def test_an_asyncio_handler_that_awaits_trio_is_told_so(connectors: Connectors) -> None:
    """The reverse, too."""

    @connectors.create("vpc", backend="asyncio")
    async def create() -> None:
        await trio.sleep(0.01)

    reply = connectors.test("vpc.create.aws")
    text = "create runs as an asyncio function, and awaited what is trio's: say backend='trio'"
    assert text in reply["error"]


def test_a_plain_function_that_returns_a_coroutine_is_told_so(connectors: Connectors) -> None:
    """A lambda around an ``async def`` hides it."""

    async def create() -> None: ...

    connectors.create("vpc", name="create")(lambda request: create())  # noqa: ARG005 - as a user would
    text = "TypeError: create returned a coroutine: declare it with `async def`"
    assert connectors.test("vpc.create.aws")["error"] == text


@pytest.mark.parametrize("backend", ["thread", "asyncio", "trio"])
def test_errors_are_the_same_wherever_a_handler_runs(connectors: Connectors, backend: str) -> None:
    """Exceptions come out of threads and of asyncio as they are."""

    def plain() -> None:
        raise Permanent("quota")

    async def asynchronous() -> None:
        raise Permanent("quota")

    connectors.create("vpc", backend=backend)(  # type: ignore[arg-type]
        plain if backend == "thread" else asynchronous
    )
    reply = connectors.test("vpc.create.aws")
    assert (reply["error"], reply["retryable"]) == ("quota", False)


@pytest.mark.parametrize("backend", ["thread", "asyncio", "trio"])
def test_a_handlers_own_log_lines_name_build_and_component(connectors: Connectors, backend: str) -> None:
    """What it binds or logs by structlog has the ids, in threads and on asyncio as well."""
    seen: list[dict[str, Any]] = []

    def plain() -> None:
        seen.append(structlog.contextvars.get_contextvars())

    async def asynchronous() -> None:
        seen.append(structlog.contextvars.get_contextvars())

    connectors.create("vpc", backend=backend)(  # type: ignore[arg-type]
        plain if backend == "thread" else asynchronous
    )
    connectors.test("vpc.create.aws", attempt="t/1")
    assert seen == [
        {"build": "test", "component": "vpc::test", "subject": "vpc.create.aws", "attempt": "t/1"}
    ]
    assert structlog.contextvars.get_contextvars() == {}


def test_a_stray_task_of_asyncio_is_logged_without_its_local_variables(
    connectors: Connectors, capsys: pytest.CaptureFixture[str]
) -> None:
    """What nobody awaits is told all the same."""

    @connectors.create("vpc", backend="asyncio")
    async def create(request: dict[str, Any]) -> None:
        async def stray() -> None:
            local = request["password"]
            raise ValueError(f"stray of {len(local)}")

        task = asyncio.get_running_loop().create_task(stray())
        await asyncio.wait([task])
        del task
        gc.collect()
        await asyncio.sleep(0)

    connectors.test("vpc.create.aws", {"password": "Tr0ub4dor&3"})
    logged = capsys.readouterr()
    assert "stray of 11" in logged.out + logged.err
    assert "Tr0ub4dor&3" not in logged.out + logged.err


def test_secrets_of_the_component_are_masked_in_the_log(
    connectors: Connectors, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reply says what the handler said; the log does not."""

    @connectors.create("vpc")
    def create(request: dict[str, Any]) -> None:
        raise ValueError(f"cannot log in with {request['password']}")

    reply = connectors.test("vpc.create.aws", {"password": "Tr0ub4dor&3"})
    assert "Tr0ub4dor&3" in reply["error"]
    logged = capsys.readouterr()
    assert "cannot log in with" in logged.out + logged.err
    assert "Tr0ub4dor&3" not in logged.out + logged.err


def test_the_record_is_kept_from_test_to_test(connectors: Connectors) -> None:
    """A key that is given is remembered, and by default each test has another one."""
    calls: list[contextvars.Context] = []

    @connectors.create("vpc")
    def create() -> dict[str, Any]:
        calls.append(contextvars.copy_context())
        return {"call": len(calls)}

    assert [connectors.test("vpc.create.aws")["call"] for _ in range(2)] == [1, 2]
    assert [connectors.test("vpc.create.aws", key="k")["call"] for _ in range(2)] == [3, 3]


async def test_within_trio_the_other_form_is_to_be_awaited(connectors: Connectors) -> None:
    """The message says which."""

    @connectors.create("vpc")
    async def create() -> None: ...

    with pytest.raises(RuntimeError, match="test_async"):
        connectors.test("vpc.create.aws")
    assert (await connectors.test_async("vpc.create.aws"))["_state"] == "completed"


def test_a_subject_without_a_handler_is_named_with_those_that_have_one(connectors: Connectors) -> None:
    """A slip of the keyboard shows."""

    @connectors.create("vpc")
    async def create() -> None: ...

    with pytest.raises(ValueError, match=r"^vpc\.crate\.aws has no handler; there are: vpc\.create\.aws$"):
        connectors.test("vpc.crate.aws")


async def test_a_thread_that_blocks_for_ever_is_left_and_its_late_success_is_recorded(
    fake_bus: FakeBus,
) -> None:
    """Its request fails in time, its flag is set, the next attempt awaits it and gets what it did."""
    connectors = Connectors("aws", timeout=0.2)
    release = threading.Event()

    @connectors.create("vpc")
    def create(context: Context) -> dict[str, Any]:
        assert context.cancelled.wait(10)
        release.wait(10)
        return {"attempt": context.attempt}

    async with open_connector(connectors, fake_bus) as peer:
        first = await peer.reply(peer.ask(attempt="1"))
        assert first["error"] == "create has not returned within 0.2 s"
        to = peer.ask(attempt="2")
        await wait_all_tasks_blocked()
        release.set()
        assert (await peer.reply(to))["attempt"] == "1"


@pytest.mark.parametrize("backend", ["thread", "asyncio"])
async def test_a_cancellation_reaches_every_backend(fake_bus: FakeBus, backend: str) -> None:
    """A thread sees the flag, a coroutine of asyncio its CancelledError."""
    connectors = Connectors("aws", timeout=10)
    begun, ends = threading.Event(), []

    def plain(context: Context) -> None:
        begun.set()
        ends.append(context.cancelled.wait(10))
        raise InterruptedError

    async def asynchronous(context: Context) -> None:
        begun.set()
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            ends.append(bool(context.cancelled))
            raise

    connectors.create("vpc", backend=backend)(  # type: ignore[arg-type]
        plain if backend == "thread" else asynchronous
    )
    async with open_connector(connectors, fake_bus) as peer:
        to = peer.ask()
        await trio.to_thread.run_sync(begun.wait, 10)
        peer.cancel(reason="cancel --now")
        assert (await peer.reply(to))["error"] == "cancelled: cancel --now"
    assert ends == [True]


async def test_an_asyncio_handler_can_await_the_flag(fake_bus: FakeBus) -> None:
    """`await context.cancelled` works on its loop."""
    connectors = Connectors("aws", backend="asyncio", timeout=10)
    begun = threading.Event()

    @connectors.create("vpc", on_cancel="flag")
    async def create(context: Context) -> dict[str, Any]:
        begun.set()
        return {"reason": await context.cancelled}

    async with open_connector(connectors, fake_bus) as peer:
        to = peer.ask()
        await trio.to_thread.run_sync(begun.wait, 10)
        peer.cancel(reason="why")
        assert (await peer.reply(to))["reason"] == "why"


def test_a_coroutine_that_cancels_itself_fails_as_by_any_exception(connectors: Connectors) -> None:
    """It was not the scheduler, whose rules say whether it is tried again."""

    @connectors.create("vpc", backend="asyncio")
    async def create() -> None:
        raise asyncio.CancelledError

    reply = connectors.test("vpc.create.aws")
    assert reply["error"] == "CancelledError"
    assert "retryable" not in reply


async def test_a_stubborn_asyncio_handler_does_not_hold_up_the_end(fake_bus: FakeBus) -> None:
    """It has its drain and a second; then it is left behind."""
    connectors = Connectors("aws", backend="asyncio", timeout=10)
    begun, stop = threading.Event(), threading.Event()

    @connectors.create("vpc")
    async def create() -> None:
        begun.set()
        while not stop.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue

    began = time.monotonic()
    async with open_connector(connectors, fake_bus, drain=0.1) as peer:
        to = peer.ask()
        await trio.to_thread.run_sync(begun.wait, 10)
    stop.set()
    assert time.monotonic() - began < 8
    assert peer.replies(to)[0]["error"] == "the connector stopped before it was done"
