"""Connectors as a process of their own, on plain nats-py; what each request gets stands in its component.

::

    python tests/integration/connectors.py nats://127.0.0.1:4222 '*.create.aws' '*.find.aws' ...

They print one JSON line for everything they see and do: ``{"event": "connected" | "request" | "reply" ...}``;
a reply's line stands before its message leaves. Commands come as JSON lines on standard input:
``{"release": GATE}`` opens a gate for good, and is answered by a line as well. They end with that input.

A component may hold ``"behaviour": {"replies": [REPLY, ...]}``; without it there is one reply ``{}``, and
with an empty list none; or ``{"attempts": [[REPLY, ...], ...]}``, a list for the first attempt, one for the
second, ... and the last for all that follow. Of a REPLY each key is optional:

- ``hold``: a gate, awaited before it; ``latency``: seconds, awaited before it.
- ``on``: ``subject`` (``<request subject>.<suffix>``), ``inbox`` (the request's reply subject) or ``both``.
- ``state``, ``suffix``: ``completed`` and ``done`` where they are not given.
- ``set``: fields; ``drop``: names of fields; ``pad``: length of a further field.
- ``raw``: the whole body as text, instead of all that; ``subject``: instead of ``on``; ``headers``.
"""

import asyncio
import json
import sys
import time
from collections import defaultdict
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg

JSON = dict[str, Any]


class Connectors:
    """Answers requests as they ask for."""

    def __init__(self) -> None:
        self.client = Client()
        self.gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.tasks: set[asyncio.Task[None]] = set()

    async def run(self, url: str, subjects: list[str]) -> None:
        """Serve until standard input ends."""

        async def reconnected() -> None:
            self.say("reconnected")

        async def disconnected() -> None:
            self.say("disconnected")

        async def failed(error: Exception) -> None:
            self.say("error", error=repr(error))

        await self.client.connect(
            url,
            name="connectors",
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.05,  # type: ignore[arg-type]  # it sleeps that long
            reconnected_cb=reconnected,
            disconnected_cb=disconnected,
            error_cb=failed,
        )
        for subject in subjects:
            await self.client.subscribe(subject, queue="connectors", cb=self.on_request)
        await self.client.flush(10)
        self.say("connected")
        await self.obey()
        await asyncio.wait_for(self.client.close(), 5)

    async def obey(self) -> None:
        """Carry out the commands of standard input until it ends."""
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
        async for line in reader:
            gate = json.loads(line)["release"]
            self.gates[gate].set()
            self.say("released", gate=gate)
        transport.close()

    def say(self, event: str, **context: Any) -> None:
        """Print one line."""
        sys.stdout.write(json.dumps({"event": event, **context}) + "\n")
        sys.stdout.flush()

    async def on_request(self, message: Msg) -> None:
        """Note a request, and see to its replies."""
        component = json.loads(message.data)
        self.say(
            "request",
            subject=message.subject,
            id=component["_component_id"],
            build=component["service"],
            inbox=message.reply,
            time=time.time(),
            headers=dict(message.headers or {}),
            body=component,
        )
        task = asyncio.create_task(self.answer(message, component))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def answer(self, message: Msg, component: JSON) -> None:
        """Send all the replies that a component asks for."""
        for reply in replies_to(message, component):
            if "hold" in reply:
                await self.gates[reply["hold"]].wait()
            if "latency" in reply:
                await asyncio.sleep(reply["latency"])
            state = reply.get("state", "completed")
            body = reply["raw"].encode() if "raw" in reply else json.dumps(result(component, reply)).encode()
            for subject in targets(message, reply, state):
                self.say(
                    "reply",
                    id=component["_component_id"],
                    build=component["service"],
                    subject=subject,
                    state=state,
                )
                await self.client.publish(subject, body, headers=reply.get("headers"))


def replies_to(message: Msg, component: JSON) -> list[JSON]:
    """What a request gets: by the number of its attempt, where the component says so."""
    behaviour = component.get("behaviour", {})
    if "attempts" in behaviour:
        # Behind the number stands the mark of the build's acceptance.
        number = int((message.headers or {})["Nats-Msg-Id"].split("/")[-2])
        replies: list[JSON] = behaviour["attempts"][min(number, len(behaviour["attempts"])) - 1]
        return replies
    return list(behaviour.get("replies", [{}]))


def targets(message: Msg, reply: JSON, state: str) -> list[str]:
    """The subjects that a reply goes out on."""
    if "subject" in reply:
        return [reply["subject"]]
    on = reply.get("on", "subject")
    suffix = reply.get("suffix", "error" if state == "errored" else "done")
    subject = [f"{message.subject}.{suffix}"] if on in {"subject", "both"} else []
    return subject + ([message.reply] if on in {"inbox", "both"} else [])


def result(component: JSON, reply: JSON) -> JSON:
    """The component as it is returned: what the cloud would have named is filled in."""
    body = dict(component)
    for key, value in component.items():
        if key.endswith(("_aws_id", "_arn")) and value == "":
            body[key] = f"made-{component['_component_id']}"
    body["out"] = f"out-of-{component['_component_id']}"
    body["_state"] = reply.get("state", "completed")
    body |= reply.get("set", {})
    if "pad" in reply:
        body["padding"] = "x" * reply["pad"]
    for key in reply.get("drop", []):
        body.pop(key, None)
    return body


if __name__ == "__main__":
    asyncio.run(Connectors().run(sys.argv[1], sys.argv[2:]))
