"""Subscribers of subjects, found out without publishing on them.

Every nats-server answers ``$SYS.REQ.ACCOUNT.PING.CONNZ`` to clients of any account, with the connections of
that account: a service that each account imports by itself. Seen with 2.15, with and without authorization. A
user with permissions needs to be allowed to publish on it.
"""

import json
import math
from typing import Any

import trio

from scheduler.bus import Bus, Message
from scheduler.errors import BusError

SUBJECT = "$SYS.REQ.ACCOUNT.PING.CONNZ"
_PAGE = 256
_MAY_WE = f"do the permissions let us publish on {SUBJECT}?"


async def subscribers(bus: Bus, *, deadline: float = 2.0, quiet: float = 0.2, page: int = _PAGE) -> list[str]:
    """Return the subjects that other connections of this account subscribe to, sorted, each once.

    Wildcards are returned as they are (``scheduler.bus.subjects.matches`` tells what they match), including
    the ``>`` of a monitor. The connection of ``bus`` is left out. The server does not know subscribers behind
    leaf nodes and gateways, so a missing subject is a reason for a warning, not for a refusal.

    Args:
        bus: a connected bus.
        deadline: seconds that the first answer may take.
        quiet: seconds to wait for one more server of a cluster to answer.
        page: number of connections to ask for at a time.

    Raises:
        BusError: there is no answer, or asking is not permitted.
    """
    found: set[str] = set()
    offset = 0
    more = True
    while more:
        body = {"subscriptions": True, "offset": offset, "limit": page}
        inbox, answers = await _ask(bus, json.dumps(body).encode(), deadline, quiet)
        more = False
        for data in answers:
            connections = data.get("connections") or ()
            for connection in connections:
                subjects = connection.get("subscriptions_list") or ()
                # The connection of ``bus`` is the one that awaits this answer.
                if inbox not in subjects:
                    found.update(subjects)
            more = more or int(data.get("total", 0)) > offset + len(connections) > offset
        offset += page
    return sorted(found)


async def _ask(bus: Bus, body: bytes, deadline: float, quiet: float) -> tuple[str, list[dict[str, Any]]]:
    """Ask all servers; return the subject that they answered on, and their answers."""
    inbox = bus.new_inbox()
    send, receive = trio.open_memory_channel[Message | None](math.inf)
    answers: list[Message] = []

    def refused(subject: str) -> bool:
        if subject == SUBJECT:
            send.send_nowait(None)
        return subject == SUBJECT

    forget = bus.on_refused(refused)
    try:
        subscription = await bus.subscribe(inbox, send.send_nowait)
    except BaseException:
        forget()
        raise
    try:
        bus.publish(SUBJECT, body, reply=inbox)
        patience = deadline
        while True:
            answer = None
            with trio.move_on_after(patience) as waiting:
                answer = await receive.receive()
            if waiting.cancelled_caught:
                break
            if answer is None:
                raise BusError(f"the broker does not list subscribers: {_MAY_WE}")
            answers.append(answer)
            if answers[-1].no_responders:
                raise BusError(f"the broker does not list subscribers: it has no service on {SUBJECT}")
            patience = quiet
    finally:
        forget()
        with trio.CancelScope(shield=True):
            await subscription.unsubscribe()
    if not answers:
        raise BusError(f"the broker does not list subscribers: no answer within {deadline:g} s; {_MAY_WE}")
    return inbox, [_read(answer) for answer in answers]


def _read(answer: Message) -> dict[str, Any]:
    try:
        document = json.loads(answer.data)
        data = document["data"]
    except (ValueError, LookupError, TypeError):
        text = answer.data[:200].decode(errors="replace")
        raise BusError(f"the broker does not list subscribers; it answered {text!r}") from None
    if not isinstance(data, dict):
        raise BusError(f"the broker does not list subscribers; it answered {type(data).__name__}")
    return data
