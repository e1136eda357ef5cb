"""A fake of Ernest's service-store (WIRE: "The Ernest store"): in memory, over a Bus, or as a process.

As a process it speaks plain nats-py, so that it shares no code with what it tests::

    python ernest_service_store.py nats://127.0.0.1:4222 [--delay MS] [--record FILE] [--strict] [--all]

It prints ``ready`` once it is subscribed, and ends on SIGTERM. Like the real one it takes one message at a
time, in the order they came. It subscribes to ``build.>``; with ``--all`` to ``>``, as the real one does:
then nobody's request is ever answered 503. The file has one JSON line for each message it understood:
``{"n", "subject", "body", "answer"}``, written before the answer leaves.

Unlike the real one it takes the mapping of a build that nobody created with ``build.set``, and calls it in
progress from then on; not with ``--strict``.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import nats
from nats.aio.msg import Msg

if TYPE_CHECKING:
    from scheduler.bus import Bus, Message, Subscription

JSON = dict[str, Any]

NOT_FOUND = "record not found"
MAX_QUEUED = 100_000


class RefusedError(Exception):
    """Answered as ``{"_error": ...}``."""


class Row:
    """A build as the store has it. Components and changes are kept by id, in order, so that it stays fast."""

    def __init__(self, build: str, kind: str = "") -> None:
        self.id = build
        self.type = kind
        self.status = "in_progress"
        self._mapping: JSON = {}
        self.lists: dict[str, dict[str, JSON]] = {"components": {}, "changes": {}}

    @property
    def mapping(self) -> JSON:
        """The build, as ``build.get.mapping`` answers it."""
        return {
            key: list(self.lists[key].values()) if key in self.lists and value is not None else value
            for key, value in self._mapping.items()
        }

    @mapping.setter
    def mapping(self, mapping: JSON) -> None:
        self._mapping = dict(mapping)
        for name in self.lists:
            self.lists[name] = {one["_component_id"]: one for one in mapping.get(name) or []}

    def set_component(self, component: JSON) -> None:
        """Update or append."""
        self._mapping["components"] = []
        self.lists["components"][component["_component_id"]] = component

    def document(self) -> JSON:
        """The row, as ``build.get`` and ``build.find`` answer it: the whole mapping is in it."""
        return {"id": self.id, "type": self.type, "status": self.status, "mapping": self.mapping}


class ServiceStore:
    """Knowledge and answers of the service; no I/O."""

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        """Whether a build must first be created with ``build.set``, as in the real one."""
        self.rows: dict[str, Row] = {}
        self.requests: list[tuple[str, JSON]] = []
        """Every message it understood, in order; reports (``build.*.done``) as well."""
        self.answers: list[bytes | None] = []
        self.next: dict[str, deque[bytes | None]] = {}
        """Answers that are given, once each, instead of carrying a request out; None: none at all."""
        self._handlers: dict[str, Callable[[JSON], Any]] = {
            "build.set": self._set,
            "build.get": lambda body: self._row(body["id"]).document(),
            "build.find": self._find,
            "build.set.mapping": self._set_mapping,
            "build.get.mapping": lambda body: self._row(body["id"]).mapping,
            "build.set.mapping.change": self._set_change,
            "build.set.mapping.component": self._set_component,
            "build.del.mapping.component": self._delete_component,
        }

    def mapping(self, build: str) -> JSON:
        """The build as it is stored now."""
        return self.rows[build].mapping

    def subjects(self) -> list[str]:
        """The subjects of all requests, in order."""
        return [subject for subject, _ in self.requests]

    def script(self, subject: str, *answers: bytes | None) -> None:
        """Answer the next requests on ``subject`` like this, without carrying them out."""
        self.next.setdefault(subject, deque()).extend(answers)

    def handle(self, subject: str, data: bytes) -> bytes | None:
        """Carry out a message: the answer, or None where there is to be none."""
        report = self._report(subject)
        handler = self._handlers.get(subject)
        if handler is None and report is None:
            return None
        try:
            body = json.loads(data or b"{}")
            self.requests.append((subject, body))
            if waiting := self.next.get(subject):
                answer = waiting.popleft()
            elif report is not None:
                answer = None
                if (row := self.rows.get(body.get("id"))) is not None:
                    row.status = report
            else:
                assert handler is not None
                result = handler(body)
                answer = b"" if result is None else json.dumps(result).encode()
        except RefusedError as error:
            answer = json.dumps({"_error": str(error)}).encode()
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            answer = json.dumps({"_error": f"bad request: {error!r}"}).encode()
        self.answers.append(answer)
        return answer

    async def attach(self, bus: "Bus") -> "Subscription":
        """Answer on ``bus``, each message at once, until unsubscribed."""

        def handle(message: "Message") -> None:
            answer = self.handle(message.subject, message.data)
            if answer is not None and message.reply:
                bus.publish(message.reply, answer)

        return await bus.subscribe("build.>", handle)

    @staticmethod
    def _report(subject: str) -> str | None:
        """The status that a message gives a build, if it is a report."""
        parts = subject.split(".")
        if len(parts) != 3 or parts[0] != "build":
            return None
        return {"done": "done", "error": "errored"}.get(parts[2])

    def _row(self, build: Any) -> Row:
        if build not in self.rows:
            raise RefusedError(NOT_FOUND)
        return self.rows[build]

    def _set(self, body: JSON) -> None:
        row = self.rows.setdefault(body["id"], Row(body["id"]))
        row.type = body.get("type", row.type)
        row.status = body.get("status", row.status)
        if "mapping" in body:
            row.mapping = body["mapping"]

    def _find(self, body: JSON) -> list[JSON]:
        rows = [row.document() for row in self.rows.values()]
        return [row for row in rows if all(row.get(key) == value for key, value in body.items())]

    def _set_mapping(self, body: JSON) -> None:
        if not self.strict:
            row = Row(body["id"], body["mapping"].get("action") or "")
            self.rows.setdefault(body["id"], row).status = "in_progress"
        self._row(body["id"]).mapping = body["mapping"]

    def _set_change(self, body: JSON) -> None:
        changes = self._row(body.get("service")).lists["changes"]
        if body["_component_id"] not in changes:
            raise RefusedError("change not found")
        changes[body["_component_id"]] = body

    def _set_component(self, body: JSON) -> None:
        self._row(body.get("service")).set_component(body)

    def _delete_component(self, body: JSON) -> None:
        self._row(body.get("service")).lists["components"].pop(body["_component_id"], None)


class Process:
    """The service on a real broker: one queue, one worker, so one message at a time."""

    def __init__(self, store: ServiceStore, delay: float, record: TextIO | None) -> None:
        self.store = store
        self.delay = delay
        self.record = record
        self.queue: asyncio.Queue[Msg] = asyncio.Queue(MAX_QUEUED)

    async def run(self, url: str, subject: str) -> None:
        """Serve until SIGTERM or SIGINT."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for one in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(one, stop.set)

        async def on_message(message: Msg) -> None:
            self.queue.put_nowait(message)

        async def on_error(error: Exception) -> None:
            print(f"error: {error!r}", file=sys.stderr, flush=True)

        client = await nats.connect(
            url, max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=on_error, name="service-store"
        )
        await client.subscribe(subject, cb=on_message)
        await client.flush(5)
        worker = asyncio.create_task(self._work())
        worker.add_done_callback(lambda _: stop.set())
        print("ready", flush=True)
        await stop.wait()
        if worker.done():
            worker.result()
        worker.cancel()
        await asyncio.wait_for(client.close(), 5)

    async def _work(self) -> None:
        while True:
            message = await self.queue.get()
            before = len(self.store.requests)
            answer = self.store.handle(message.subject, message.data)
            if len(self.store.requests) > before:
                await asyncio.sleep(self.delay)
                self._write(answer)
            if answer is not None and message.reply:
                await message.respond(answer)

    def _write(self, answer: bytes | None) -> None:
        if self.record is None:
            return
        subject, body = self.store.requests[-1]
        text = None if answer is None else answer.decode()
        line = {"n": len(self.store.requests), "subject": subject, "body": body, "answer": text}
        self.record.write(json.dumps(line) + "\n")
        self.record.flush()


class Spawned:
    """The fake as a process of its own, for tests."""

    def __init__(self, process: subprocess.Popen[str], record: Path) -> None:
        self.process = process
        self._record = record

    def records(self) -> list[JSON]:
        """Return its record so far."""
        lines = self._record.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def stop(self) -> None:
        """End it, in order if it can. Idempotent."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)


@contextlib.contextmanager
def spawn(url: str, record: Path, *arguments: str) -> Iterator[Spawned]:
    """Run the process for as long as the context lasts; it is subscribed when this yields."""
    command = [sys.executable, __file__, url, "--record", str(record), *arguments]
    record.touch()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        spawned = Spawned(process, record)
        try:
            assert process.stdout is not None
            # Where it hangs or ends before it is ready, the test's own timeout or the missing line says so.
            assert process.stdout.readline() == "ready\n", "the service-store did not start"
            yield spawned
        finally:
            spawned.stop()


def main() -> None:
    """Run the fake as a process."""
    parser = argparse.ArgumentParser(description="A fake of Ernest's service-store.")
    parser.add_argument("url")
    parser.add_argument("--delay", type=float, default=0.0, help="milliseconds for each message")
    parser.add_argument("--record", type=Path, help="a file that gets a JSON line for each message")
    parser.add_argument("--strict", action="store_true", help="refuse builds that build.set did not create")
    parser.add_argument("--all", action="store_true", help="subscribe to everything, as the real one")
    options = parser.parse_args()
    record = options.record.open("a") if options.record else None
    process = Process(ServiceStore(strict=options.strict), options.delay / 1000, record)
    try:
        asyncio.run(process.run(options.url, ">" if options.all else "build.>"))
    finally:
        if record is not None:
            record.close()


if __name__ == "__main__":
    main()
