"""Processes and a client for integration tests. Every wait is for something, and has a deadline."""

import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Generic, Self, TypeVar

from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.errors import NoRespondersError

ROOT = Path(__file__).parents[2]
DEADLINE = 40.0
"""Seconds for what takes one: a noisy machine is no failure of ours."""
CANARY = "CaNaRy"
"""Stands in component fields and passwords, and must never stand in a log."""

JSON = dict[str, Any]
T = TypeVar("T")
R = TypeVar("R")


class Feed(Generic[T]):
    """A list that another thread appends to, and that can be waited for."""

    def __init__(self) -> None:
        self._items: list[T] = []
        self._changed = threading.Condition()
        self._ended = False

    def append(self, item: T) -> None:
        with self._changed:
            self._items.append(item)
            self._changed.notify_all()

    def end(self) -> None:
        """Nothing more will come."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        with self._changed:
            return iter(list(self._items))

    def __len__(self) -> int:
        return len(self._items)

    def wait(self, look: Callable[[list[T]], R | None], deadline: float = DEADLINE, what: str = "") -> R:
        """Return what ``look`` makes of the items, as soon as that is neither None nor False."""
        until = time.monotonic() + deadline
        with self._changed:
            while True:
                found = look(self._items)
                if found is not None and found is not False:
                    return found
                left = until - time.monotonic()
                if self._ended or left <= 0:
                    why = "has ended" if self._ended else f"has not come within {deadline} s"
                    shown = "\n".join(str(item)[:300] for item in self._items[-30:])
                    raise AssertionError(f"{what or 'it'} {why}; the last of {len(self._items)}:\n{shown}")
                self._changed.wait(left)

    def first(self, test: Callable[[T], bool], deadline: float = DEADLINE, what: str = "") -> T:
        """Wait for the first item that passes ``test``."""
        return self.wait(lambda items: next((item for item in items if test(item)), None), deadline, what)

    def count(
        self, number: int, test: Callable[[T], bool] | None = None, deadline: float = DEADLINE
    ) -> list[T]:
        """Wait for so many items (that pass ``test``) at least; returns them."""

        def look(items: list[T]) -> list[T] | None:
            found = [item for item in items if test is None or test(item)]
            return found if len(found) >= number else None

        return self.wait(look, deadline, f"{number} items")


class Process:
    """A child process whose output is read as it comes; use it as a context, which kills what is left."""

    def __init__(self, *command: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> None:
        variables = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("NATS_", "OTEL_", "SCHEDULER_", "TRACE"))
        }
        variables |= {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(env or {})}
        self.out: Feed[str] = Feed()
        self.err: Feed[str] = Feed()
        self._process = subprocess.Popen(
            command,
            env=variables,
            cwd=cwd or ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._threads = [
            threading.Thread(target=_read, args=pair, daemon=True)
            for pair in ((self._process.stdout, self.out), (self._process.stderr, self.err))
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def write(self, text: str, *, end: bool = False) -> None:
        """Write to its standard input, and close that where it is the ``end``."""
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()
        if end:
            self._process.stdin.close()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, deadline: float = DEADLINE) -> int:
        """Await its end and all of its output; returns the exit code, negative after a signal."""
        try:
            code = self._process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it has not ended within {deadline} s:\n{self.errors}") from None
        for thread in self._threads:
            thread.join(DEADLINE)
        return code

    @property
    def code(self) -> int:
        """The exit code, once it has ended."""
        return self.wait()

    def stop(self, number: signal.Signals = signal.SIGTERM, deadline: float = DEADLINE) -> tuple[int, float]:
        """Send a signal and await the end; returns the exit code and the seconds it took."""
        began = time.monotonic()
        self.send(number)
        code = self.wait(deadline)
        return code, time.monotonic() - began

    def kill(self) -> None:
        """Kill it, and await its end."""
        self._process.kill()
        self.wait()

    def close(self) -> None:
        """Kill it if it still runs, and leave nothing behind. Idempotent."""
        if self.running:
            self._process.kill()
        self.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    @property
    def output(self) -> str:
        return "\n".join(self.out)

    @property
    def errors(self) -> str:
        return "\n".join(self.err)


def _read(pipe: IO[bytes], feed: Feed[str]) -> None:
    for line in pipe:
        feed.append(line.decode(errors="replace").rstrip("\n"))
    feed.end()


class Scheduler(Process):
    """``python -m scheduler`` with arguments; with the memory store, where a test does not say otherwise."""

    def __init__(self, *arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> None:
        variables = {"SCHEDULER_STORE": "memory", **(env or {})}
        super().__init__(sys.executable, "-m", "scheduler", *arguments, env=variables, cwd=cwd)

    @property
    def log(self) -> list[JSON]:
        """Its log so far."""
        return [_entry(line) for line in self.err]

    def await_log(self, event: str, deadline: float = DEADLINE, *, times: int = 1, **values: Any) -> JSON:
        """Wait for a line of the log, for the nth of its kind; of ``values`` texts need to be a part only."""

        def fits(line: str) -> bool:
            if event not in line:  # which costs less than to read it
                return False
            entry = _entry(line)
            return entry["event"] == event and all(
                value in entry.get(key, "") if isinstance(value, str) else entry.get(key) == value
                for key, value in values.items()
            )

        found: JSON = json.loads(self.err.wait(lambda lines: _nth(lines, fits, times), deadline, event))
        return found

    def check_log(self) -> None:
        """Every line is JSON, without a traceback, a body of a component, or a secret."""
        text = self.errors
        assert "Traceback" not in text, text
        assert CANARY not in text, text
        for entry in self.log:
            assert entry["event"] != NO_LOG, entry
            assert "exception" not in entry, entry
            assert len(json.dumps(entry)) < 8_000, entry

    def end(self) -> None:
        """End it in order, and look at its log."""
        code, _ = self.stop()
        self.check_log()
        assert code == 0, self.errors


NO_LOG = "this is no line of a log"


def _entry(line: str) -> JSON:
    try:
        entry: JSON = json.loads(line)
    except ValueError:
        return {"event": NO_LOG, "line": line}
    return entry


def _nth(lines: list[str], fits: Callable[[str], bool], number: int) -> str | None:
    found = [line for line in lines if fits(line)]
    return found[number - 1] if len(found) >= number else None


VERBS = ("create", "update", "delete", "get", "find")
ALL_OF_AWS = tuple(f"*.{verb}.aws" for verb in VERBS)


class Connectors(Process):
    """The process of ``connectors.py``, by default for whatever is of the provider ``aws``."""

    def __init__(self, url: str, *subjects: str) -> None:
        script = str(Path(__file__).with_name("connectors.py"))
        super().__init__(sys.executable, script, url, *(subjects or ALL_OF_AWS))
        self._barriers = 0
        self.await_event("connected")

    @property
    def records(self) -> list[JSON]:
        """Everything it saw and did so far, in order."""
        # What it printed may be on its way to us, later than what it published: its answer comes behind it.
        self._barriers += 1
        self.release(f"barrier {self._barriers}")
        return [json.loads(line) for line in self.out]

    def requests(self, build: str | None = None) -> list[JSON]:
        """The requests that came, in order."""
        return [
            one
            for one in self.records
            if one["event"] == "request" and (build is None or one["build"] == build)
        ]

    def ids(self, build: str | None = None) -> list[str]:
        """The components that were requested, in order."""
        return [request["id"] for request in self.requests(build)]

    def await_event(self, event: str, *, times: int = 1, **values: Any) -> JSON:
        """Wait for the nth line of its kind."""

        def fits(line: str) -> bool:
            if f'"{event}"' not in line:
                return False
            entry = json.loads(line)
            return bool(
                entry["event"] == event and all(entry.get(key) == value for key, value in values.items())
            )

        found: JSON = json.loads(self.out.wait(lambda lines: _nth(lines, fits, times), what=event))
        return found

    def await_requests(self, build: str, *ids: str) -> None:
        """Wait until these components were requested."""
        for name in ids:
            self.await_event("request", build=build, id=name)

    def release(self, gate: str) -> None:
        """Open a gate."""
        self.write(json.dumps({"release": gate}) + "\n")
        self.await_event("released", gate=gate)


class Message:
    """A message as it came in."""

    def __init__(self, message: Msg) -> None:
        self.at = time.monotonic()
        self.subject = message.subject
        self.data = message.data
        self.reply = message.reply
        self.headers = dict(message.headers or {})

    @cached_property
    def json(self) -> Any:
        return json.loads(self.data)

    def __repr__(self) -> str:
        return f"{self.subject} {self.data[:200]!r} ({len(self.data)} bytes)"


class Client:
    """A client of the broker on plain nats-py, in a thread of its own, to be used from plain functions."""

    def __init__(self, url: str, **options: Any) -> None:
        # Not `new_event_loop`: where trio-asyncio is imported, that is a loop bound to its thread.
        self._loop: asyncio.AbstractEventLoop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._client = NatsClient()
        self.reconnects: Feed[str] = Feed()
        options = {"max_reconnect_attempts": -1, "reconnect_time_wait": 0.05, "name": "test", **options}
        self._call(
            self._client.connect(url, error_cb=self._ignore, reconnected_cb=self._reconnected, **options)
        )

    async def _ignore(self, _: Exception) -> None:
        pass

    async def _reconnected(self) -> None:
        self.reconnects.append("reconnected")

    def _call(self, coroutine: Any, deadline: float = DEADLINE) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(deadline)

    def listen(self, *subjects: str) -> Feed[Message]:
        """Subscribe; the server knows of it on return."""
        feed: Feed[Message] = Feed()

        async def receive(message: Msg) -> None:
            feed.append(Message(message))

        for subject in subjects:
            self._call(self._client.subscribe(subject, cb=receive, pending_bytes_limit=1 << 30))
        self.flush()
        return feed

    def serve(self, subject: str, answer: Callable[[str, bytes], bytes | None]) -> None:
        """Answer requests; None is no answer."""

        async def receive(message: Msg) -> None:
            data = answer(message.subject, message.data)
            if data is not None and message.reply:
                await message.respond(data)

        self._call(self._client.subscribe(subject, cb=receive))
        self.flush()

    def publish(self, subject: str, body: JSON | list[Any] | bytes, reply: str = "") -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._call(self._client.publish(subject, data, reply))

    def publish_with(self, subject: str, data: bytes, reply: str, headers: dict[str, str]) -> None:
        """Publish with headers."""
        self._call(self._client.publish(subject, data, reply, headers))

    def publish_all(self, messages: Sequence[tuple[str, bytes, str]]) -> None:
        """Publish subject, body and reply subject of each, and flush."""

        async def publish() -> None:
            for subject, data, reply in messages:
                await self._client.publish(subject, data, reply)
            await self._client.flush(30)

        self._call(publish())

    def request(self, subject: str, body: JSON | list[Any] | bytes, deadline: float = DEADLINE) -> JSON:
        """The answer to a request.

        Raises:
            nats.errors.NoRespondersError: nobody listens.
        """
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        message = self._call(self._client.request(subject, data, timeout=deadline), deadline + 5)
        answer: JSON = json.loads(message.data)
        return answer

    def ping(self, service: str, deadline: float = DEADLINE) -> None:
        """Wait until a service answers discovery."""
        until = time.monotonic() + deadline
        while True:
            try:
                self.request(f"$SRV.PING.{service}", b"")
            except NoRespondersError:
                assert time.monotonic() < until, f"{service} does not answer"
            else:
                return

    def request_many(self, subject: str, number: int) -> list[JSON]:
        """So many answers to one request."""
        inbox = self._client.new_inbox()
        answers = self.listen(inbox)
        self.publish(subject, b"", inbox)
        return [message.json for message in answers.count(number)]

    def flush(self) -> None:
        """On return the server has processed all that was published."""
        self._call(self._client.flush(30))

    def close(self) -> None:
        self._call(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE)
        self._loop.close()


REPORTS = ("build.*.done", "build.*.error", "service.*.done", "service.*.error")


class Submitter:
    """Somebody who submits builds, and sees every report there is."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.reports = client.listen(*REPORTS)

    def submit(self, build: JSON, subject: str | None = None) -> JSON:
        """Hand a build in; returns the answer."""
        return self.client.request(subject or build["action"], build)

    def accepted(self, *builds: JSON) -> None:
        """Hand builds in; each is accepted."""
        for build in builds:
            answer = self.submit(build)
            assert answer == {"id": build["id"], "status": "accepted"}, answer

    def publish(self, build: JSON, subject: str | None = None) -> None:
        """Hand a build in without a reply subject, as Ernest does."""
        self.client.publish(subject or build["action"], build)

    def report(self, build: str, deadline: float = DEADLINE) -> Message:
        """Wait for the report of a build."""
        return self.reports.first(
            lambda message: message.json.get("id") == build, deadline, f"report of {build}"
        )

    def reports_of(self, build: str) -> list[Message]:
        """What was reported of a build so far."""
        return [message for message in self.reports if message.json.get("id") == build]

    def done(self, build: JSON, deadline: float = DEADLINE) -> JSON:
        """Wait for the report that a build is done; returns it."""
        message = self.report(build["id"], deadline)
        assert message.subject == f"{build['action']}.done", message.json.get("error")
        document: JSON = message.json
        assert "error" not in document
        return document

    def failed(self, build: JSON, deadline: float = DEADLINE) -> JSON:
        """Wait for the report that a build failed; returns it."""
        message = self.report(build["id"], deadline)
        assert message.subject == f"{build['action']}.error", message
        document: JSON = message.json
        assert document["error"]
        return document

    def run(self, build: JSON) -> JSON:
        """Hand a build in and see it done; returns the report."""
        self.accepted(build)
        return self.done(build)


def eventually(predicate: Callable[[], bool], what: str = "", deadline: float = DEADLINE) -> None:
    """Wait until something is true that has to be asked for."""
    until = time.monotonic() + deadline
    while not predicate():
        assert time.monotonic() < until, f"not within {deadline} s: {what}"
        time.sleep(0.01)


def within(seconds: float, attempt: Callable[[], float]) -> None:
    """Have something take less than so many seconds: a noisy machine may spoil two attempts, not three."""
    took: list[float] = []
    while len(took) < 3:
        took.append(attempt())
        if took[-1] < seconds:
            return
    raise AssertionError(f"it took {took} seconds, and may take {seconds}")


def await_death(pid: int, deadline: float = DEADLINE) -> None:
    """Wait for the end of a process that is nobody's child here."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([handle], [], [], deadline)[0], f"process {pid} has not ended"
    finally:
        os.close(handle)


def states(report: JSON) -> dict[str, str]:
    """The state of each change of a report, by id."""
    return {change["_component_id"]: change["_state"] for change in report["changes"]}


def errors(report: JSON) -> dict[str, str]:
    """The error of each change of a report that has one, by id."""
    return {change["_component_id"]: change["error"] for change in report["changes"] if "error" in change}
