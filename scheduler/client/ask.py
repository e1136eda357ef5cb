"""Asks a running scheduler about its builds, and steers them, over ``scheduler.build.<verb>``.

Requests and answers are JSON (WIRE: "Control"). Nothing here knows the service: any scheduler may answer.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias, TypeVar

import msgspec

from scheduler.bus import Bus, Message
from scheduler.client.lenient import number, objects
from scheduler.definition.strictjson import encode
from scheduler.definition.subjects import CONTROL
from scheduler.errors import NoResponders, NotPermitted, SteeringError

PAGE = 1_000
"""Largest number of builds, or components, in one answer."""
_MOST_PAGES = 10_000
"""Largest number of pages, far more than any build has: a scheduler that never ends must not hold us."""

FORBIDDEN = "forbidden"
"""Code of an error: the broker's permissions do not allow it."""
_WORDS = {
    "list": "list builds",
    "get": "look at builds",
    "report": "look at reports",
    "unmasked": "look at reports with their secrets",
    "why": "ask what builds wait for",
    "history": "ask what was done to builds",
    "plan": "ask for durations and limits",
    "cancel": "cancel builds",
    "pause": "pause builds",
    "resume": "resume builds",
    "retry": "retry builds",
    "skip": "skip components",
    "approve": "approve components",
    "reject": "reject components",
    "extend": "extend the time of components",
    "limit": "change the limits of builds",
}

Document: TypeAlias = dict[str, Any]
"""A JSON object."""
_T = TypeVar("_T")


def subject_of(verb: str) -> str:
    """Return the subject of a question or command."""
    return f"{CONTROL}{verb}"


async def ask(bus: Bus, verb: str, document: Mapping[str, Any]) -> Document:
    """Send one question or command and return the answer; the caller owns the deadline.

    Args:
        bus: the connection.
        verb: ``list``, ``get``, ``why``, ``cancel``, ...
        document: the request, mostly ``{"id": build}``.

    Raises:
        SteeringError: the scheduler refuses, with its reason; or no scheduler answers, with code ``nobody``;
            or this user may not ask, with code ``forbidden``.
        BusError: the bus cannot be used.
    """
    message = await ask_raw(bus, verb, document)
    try:
        answer = msgspec.json.decode(message.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise _unreadable(verb)
    if isinstance(answer.get("error"), dict):
        raise _refusal(answer, "")
    return answer


async def ask_as(bus: Bus, verb: str, document: Mapping[str, Any], form: type[_T]) -> _T:
    """Send one question as `ask` does, and return the answer in a form in which parts can stay JSON text.

    Raises:
        SteeringError, BusError: see `ask`.
    """
    message = await ask_raw(bus, verb, document)
    try:
        return msgspec.json.decode(message.data, type=form)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _unreadable(verb) from None


async def ask_raw(bus: Bus, verb: str, document: Mapping[str, Any]) -> Message:
    """Send one question as `ask` does, and return the message of the answer, not yet decoded.

    Raises:
        SteeringError, BusError: see `ask`.
    """
    subject = subject_of(verb)
    try:
        message = await bus.request(subject, encode(document))
    except NoResponders:
        text = "no scheduler answers: start one with `scheduler serve`, or check --nats-url"
        raise SteeringError("nobody", text) from None
    except NotPermitted as error:
        words = _WORDS.get(verb, f"use {verb!r}")
        raise SteeringError(FORBIDDEN, f"this user may not {words}: {error.refusal}") from None
    refused = (message.headers or {}).get("Nats-Service-Error")
    if refused is not None:
        try:
            raise _refusal(msgspec.json.decode(message.data), refused)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise _refusal(None, refused) from None
    return message


def _refusal(answer: Any, refused: str) -> SteeringError:
    said = answer.get("error") if isinstance(answer, dict) else None
    said = said if isinstance(said, dict) else {}
    return SteeringError(
        str(said.get("code") or "internal"), str(said.get("message") or refused or "refused")
    )


def _unreadable(verb: str) -> SteeringError:
    return SteeringError("unreadable", f"what answers on {subject_of(verb)} is not a scheduler")


async def list_builds(bus: Bus, *, finished: bool) -> list[Mapping[str, Any]]:
    """List the builds that a scheduler knows, the newest last; finished ones only with ``finished``.

    Raises:
        SteeringError: see `ask`.
        BusError: the bus cannot be used.
    """
    builds: list[Mapping[str, Any]] = []
    question: Document = {"all": finished, "limit": PAGE}
    for _ in range(_MOST_PAGES):
        page = await ask(bus, "list", question)
        builds += objects(page.get("builds"))
        following = page.get("next")
        if not isinstance(following, str):
            break
        question["after"] = following
    return sorted(builds, key=lambda build: number(build.get("accepted", build.get("ended"))) or 0.0)


async def get_build(bus: Bus, build: str, *, graph: bool = False) -> Document:
    """Return one build with all of its components, fetched page by page.

    The pages are of different moments. Everything but the components is from the first page, ``seq`` too. A
    caller that applies the events after that number ends up with the right states, since each event tells
    the new state of its component.

    Args:
        bus: the connection.
        build: its id.
        graph: whether each component names its dependencies, as ``needs``.

    Raises:
        SteeringError: see `ask`.
        BusError: the bus cannot be used.
    """
    question: Document = {"id": build, "components": True, "graph": graph}
    return await _pages(bus, "get", question, "components")


async def get_history(bus: Bus, build: str) -> Document:
    """Return all orders about a build that the scheduler knows, fetched page by page.

    Raises:
        SteeringError: see `ask`.
        BusError: the bus cannot be used.
    """
    return await _pages(bus, "history", {"id": build}, "orders")


async def _pages(bus: Bus, verb: str, question: Document, entries: str) -> Document:
    """Ask page by page; return the first answer, with the entries of all pages."""
    question |= {"from": 0, "limit": PAGE}
    whole = await ask(bus, verb, question)
    found = objects(whole.get(entries))
    following, last = whole.get("next"), 0
    # Each page has to begin after the one before it, or this would never end.
    while isinstance(following, int) and following > last:
        question["from"] = last = following
        page = await ask(bus, verb, question)
        found += objects(page.get(entries))
        following = page.get("next")
    whole[entries], whole["next"] = found, None
    return whole


async def get_summary(bus: Bus, build: str) -> Document:
    """Return one build without its components.

    Raises:
        SteeringError: see `ask`.
        BusError: the bus cannot be used.
    """
    return await ask(bus, "get", {"id": build, "components": False})
