"""Asks a running scheduler about its builds, and steers them, over ``scheduler.build.<verb>``.

Requests and answers are JSON (WIRE: "Control"). Nothing here knows the service: any scheduler may answer.
What gets no answer is asked again (`scheduler.client.repeating`), an order under one and the same id.
"""

import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
import trio
from attrs import frozen

from scheduler.bus import Bus, Message
from scheduler.client.lenient import number, objects, text
from scheduler.client.repeating import QUESTION, SILENT, Pauses, request_again
from scheduler.definition.strictjson import encode
from scheduler.definition.subjects import CONTROL
from scheduler.errors import NoResponders, NotPermitted, SteeringError

PAGE = 1_000
"""Largest number of builds, or components, in one answer."""
_MOST_PAGES = 10_000
"""Largest number of pages, far more than any build has: a scheduler that never ends must not hold us."""
_WHOLE: Final = 60.0
"""Seconds for all pages of an answer."""
ORDER_LIFE: Final = 30.0
"""Seconds after which an order is not carried out any more: the sender has long been told that there was no
answer, and may have done something else."""

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
    "instances": "list instances",
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


async def ask(bus: Bus, verb: str, document: Mapping[str, Any], pauses: Pauses = QUESTION) -> Document:
    """Send one question, and return the answer.

    Args:
        bus: the connection.
        verb: ``list``, ``get``, ``why``, ...
        document: the request, mostly ``{"id": build}``.
        pauses: seconds to wait after each try.

    Raises:
        SteeringError: the scheduler refuses, with its reason; or no scheduler is there, with code ``nobody``;
            or none answers in time, with code ``silent``; or this user may not ask, with code ``forbidden``.
        BusError: the bus cannot be used.
    """
    message = await ask_raw(bus, verb, document, pauses)
    try:
        answer = msgspec.json.decode(message.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise _unreadable(verb)
    if isinstance(answer.get("error"), dict):
        raise _refusal(answer, "")
    return answer


async def give_order(bus: Bus, verb: str, document: Mapping[str, Any]) -> Document:
    """Send one order about a build, which is carried out once, and return the answer.

    The order has an id, so that it may be sent again, and a time after which it is not carried out.

    Args:
        bus: the connection.
        verb: ``cancel``, ``pause``, ``retry``, ...
        document: the request.

    Raises:
        SteeringError, BusError: see `ask`; after ``silent`` the order may still be carried out, for 30 s.
    """
    expires = round(time.time() + ORDER_LIFE, 3)
    try:
        return await ask(bus, verb, {**document, "order": secrets.token_hex(8), "expires": expires})
    except SteeringError as error:
        if error.code != SILENT:
            raise
        text = f"{error}; the order may still be carried out, up to {ORDER_LIFE:g} s after it was given"
        raise SteeringError(SILENT, text) from None


async def ask_as(
    bus: Bus, verb: str, document: Mapping[str, Any], form: type[_T], pauses: Pauses = QUESTION
) -> _T:
    """Send one question as `ask` does, and return the answer in a form in which parts can stay JSON text.

    Raises:
        SteeringError, BusError: see `ask`.
    """
    message = await ask_raw(bus, verb, document, pauses)
    try:
        return msgspec.json.decode(message.data, type=form)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _unreadable(verb) from None


async def ask_raw(bus: Bus, verb: str, document: Mapping[str, Any], pauses: Pauses = QUESTION) -> Message:
    """Send one question as `ask` does, and return the message of the answer, not yet decoded.

    Raises:
        SteeringError, BusError: see `ask`.
    """
    try:
        message = await request_again(bus, subject_of(verb), encode(document), pauses)
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


@contextmanager
def _in_time(verb: str) -> Iterator[None]:
    """Fail what takes too long although each page is answered."""
    try:
        with trio.fail_after(_WHOLE):
            yield
    except trio.TooSlowError:
        text = f"not all pages came within {_WHOLE:g} s on {subject_of(verb)}: try again"
        raise SteeringError(SILENT, text) from None


def _refusal(answer: Any, refused: str) -> SteeringError:
    said = answer.get("error") if isinstance(answer, dict) else None
    said = said if isinstance(said, dict) else {}
    return SteeringError(
        str(said.get("code") or "internal"), str(said.get("message") or refused or "refused")
    )


def _unreadable(verb: str) -> SteeringError:
    return SteeringError("unreadable", f"what answers on {subject_of(verb)} is not a scheduler")


@frozen
class Listing:
    """Builds of all instances of a scheduler."""

    builds: list[Mapping[str, Any]]
    """Builds, the newest last."""
    silent: list[Mapping[str, Any]]
    """Instances that did not answer, so that their builds are missing."""


async def list_builds(bus: Bus, *, finished: bool) -> list[Mapping[str, Any]]:
    """List the builds that a scheduler knows, as `list_all` does.

    Raises:
        SteeringError: see `ask`.
        BusError: the bus cannot be used.
    """
    return (await list_all(bus, finished=finished)).builds


async def list_all(bus: Bus, *, finished: bool) -> Listing:
    """List the builds that a scheduler knows, the newest last; finished ones only with ``finished``.

    Raises:
        SteeringError: see `ask`.
        BusError: the bus cannot be used.
    """
    builds: list[Mapping[str, Any]] = []
    silent: dict[str, Mapping[str, Any]] = {}
    question: Document = {"all": finished, "limit": PAGE}
    with _in_time("list"):
        for _ in range(_MOST_PAGES):
            page = await ask(bus, "list", question)
            builds += objects(page.get("builds"))
            silent |= {text(one.get("name")): one for one in objects(page.get("silent"))}
            following = page.get("next")
            if not isinstance(following, str):
                break
            question["after"] = following
    builds.sort(key=lambda build: number(build.get("accepted", build.get("ended"))) or 0.0)
    return Listing(builds, list(silent.values()))


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
    with _in_time(verb):
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


async def get_summary(bus: Bus, build: str, pauses: Pauses = QUESTION) -> Document:
    """Return one build without its components.

    Args:
        bus: the connection.
        build: its id.
        pauses: seconds to wait after each try.

    Raises:
        SteeringError: see `ask`.
        BusError: the bus cannot be used.
    """
    return await ask(bus, "get", {"id": build, "components": False}, pauses)
