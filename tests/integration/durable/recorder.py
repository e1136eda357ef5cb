"""Connectors that write a record of their own, as a process of their own, on plain nats-py.

::

    python tests/integration/durable/recorder.py URL RECORD '{"latency": [0.02, 0.1]}' SUBJECT...

Every request that is received and every answer that is given is a JSON line in the file RECORD, written
before anything else is done about it, and the same line goes to standard output:

``{"event": "request" | "answer", "time", "build", "component", "attempt", "subject", "inbox", ...}``

A request's line has its ``again`` (how often this attempt came before) and the rendered fields whose names
begin with ``ref``; an answer's has its ``state``, and ``out``, a text that no other answer has: by that one
it is known again wherever its content goes. An answer is given once and never repeated, whatever becomes of
it; while the broker is away it waits in the client, like any client's.

Options, of which a component's ``behaviour`` overrides each:

- ``latency``: seconds, or the least and the most of them; ``errors``: the part of requests that fail.
- ``on``: ``subject`` (``<request subject>.done``), ``inbox`` (the request's reply subject) or ``mixed``.
- ``idempotent``: a request whose attempt id came before is answered as the first one was, and does nothing.
- ``hold``: a gate that is awaited before the answer; ``silent``: there is none, or, for a number, none to
  the first so many requests of an attempt.
- ``found``: ids of components that a ``find`` returns; ``pad``: length of a further field.

Commands come as JSON lines on standard input, and are answered by a line: ``{"release": GATE}`` opens a gate,
and ``{"drain": true}`` takes no more requests, and is answered once those that came have their answers.
They end with that input.
"""

import asyncio
import json
import os
import random
import secrets
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

JSON = dict[str, Any]


class Recorder:
    """Answers requests, and writes down what it sees and does."""

    def __init__(self, record: Path, options: Mapping[str, Any]) -> None:
        self.client = Client()
        self.options = options
        self._file = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._came: Counter[str] = Counter()
        self._results: dict[str, asyncio.Future[JSON]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._subscriptions: list[Subscription] = []

    async def run(self, url: str, subjects: list[str]) -> None:
        """Serve until standard input ends."""
        await self.client.connect(
            url,
            name="recorder",
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.05,  # type: ignore[arg-type]  # it sleeps that long
            pending_size=1 << 26,
            reconnected_cb=self._reconnected,
            error_cb=self._failed,
        )
        for subject in subjects:
            self._subscriptions.append(
                await self.client.subscribe(subject, queue="connectors", cb=self.on_request)
            )
        await self.client.flush(10)
        self.say("connected")
        await self.obey()
        await asyncio.wait_for(self.client.close(), 5)
        os.close(self._file)

    async def _reconnected(self) -> None:
        self.say("reconnected")

    async def _failed(self, error: Exception) -> None:
        self.say("error", error=repr(error))

    async def obey(self) -> None:
        """Carry out the commands of standard input until it ends."""
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
        async for line in reader:
            command = json.loads(line)
            if "drain" in command:
                await self.drain()
                continue
            gate = command["release"]
            self._gates[gate].set()
            self.say("released", gate=gate)
        transport.close()

    async def drain(self) -> None:
        """Take no more requests, and answer those that came."""
        for subscription in self._subscriptions:
            await subscription.drain()  # type: ignore[no-untyped-call]
        # What a server was just about to hand on may still come.
        await asyncio.sleep(0.2)
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self.client.flush(10)
        self.say("drained")

    def say(self, event: str, **context: Any) -> None:
        """Print one line."""
        sys.stdout.write(json.dumps({"event": event, "time": time.time(), **context}) + "\n")
        sys.stdout.flush()

    def record(self, event: str, **context: Any) -> None:
        """Write one line into the record, and print it."""
        line = json.dumps({"event": event, "time": time.time(), **context}) + "\n"
        os.write(self._file, line.encode())
        sys.stdout.write(line)
        sys.stdout.flush()

    async def on_request(self, message: Msg) -> None:
        """Note a request, and see to its answer."""
        component = json.loads(message.data)
        attempt = (message.headers or {}).get("Nats-Msg-Id", "")
        self.record(
            "request",
            build=component["service"],
            component=component["_component_id"],
            attempt=attempt,
            subject=message.subject,
            inbox=message.reply,
            again=self._came[attempt],
            state=component["_state"],
            refs={key: value for key, value in component.items() if key.startswith("ref")},
        )
        self._came[attempt] += 1
        task = asyncio.create_task(self.answer(message, component, attempt, self._came[attempt]))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def answer(self, message: Msg, component: JSON, attempt: str, number: int) -> None:
        """Do what is asked for the ``number``-th time, and say how it went, once."""
        options = {**self.options, **component.get("behaviour", {})}
        silent = options.get("silent", False)
        if silent is True or number <= silent:
            return
        known = self._results.get(attempt) if options.get("idempotent") else None
        if known is None:
            self._results[attempt] = asyncio.get_running_loop().create_future()
            known = self._results[attempt]
            result = await work(component, options, self._gates)
            if not known.done():
                known.set_result(result)
        else:
            result = await asyncio.shield(known)
        on = options.get("on", "subject")
        if on == "mixed":
            on = random.choice(["subject", "inbox"])
        suffix = "error" if result["_state"] == "errored" else "done"
        subject = message.reply if on == "inbox" else f"{message.subject}.{suffix}"
        self.record(
            "answer",
            build=component["service"],
            component=component["_component_id"],
            attempt=attempt,
            subject=subject,
            state=result["_state"],
            out=result["out"],
        )
        await self.client.publish(subject, json.dumps(result).encode())


async def work(component: JSON, options: JSON, gates: Mapping[str, asyncio.Event]) -> JSON:
    """The component as it is returned, after whatever it takes."""
    if "hold" in options:
        await gates[options["hold"]].wait()
    latency = options.get("latency", 0)
    await asyncio.sleep(random.uniform(*latency) if isinstance(latency, list) else latency)
    result = {**component, "_state": "completed", "out": secrets.token_hex(8)}
    if component["_action"] == "find":
        result["components"] = [
            {"_component_id": name, "_component": name.partition("::")[0], "out": result["out"]}
            for name in options.get("found", [])
        ]
    if random.random() < options.get("errors", 0):
        result |= {"_state": "errored", "error": f"{component['_component_id']} broke"}
    if "pad" in options:
        result["padding"] = "x" * options["pad"]
    return result


if __name__ == "__main__":
    recorder = Recorder(Path(sys.argv[2]), json.loads(sys.argv[3]))
    asyncio.run(recorder.run(sys.argv[1], sys.argv[4:]))
