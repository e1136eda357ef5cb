"""Asking a running scheduler about its builds, and steering them: the client of ``scheduler.build.<verb>``.

JSON in and out (WIRE: "Control"). Nothing here knows the service: whichever scheduler answers is
asked.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from scheduler.bus import Bus
from scheduler.client.lenient import number, objects
from scheduler.definition.strictjson import encode
from scheduler.definition.subjects import CONTROL
from scheduler.errors import NoResponders, NotPermitted, SteeringError

PAGE = 1_000
"""Builds, or components, in one answer."""
_MOST_PAGES = 10_000
"""Far beyond what any build has: a scheduler whose pages never end must not hold us."""

FORBIDDEN = "forbidden"
"""The code of what the broker's permissions do not allow."""
_WORDS = {
    "list": "list builds",
    "get": "look at builds",
    "why": "ask what builds wait for",
    "plan": "ask for durations and limits",
    "cancel": "cancel builds",
    "pause": "pause builds",
    "resume": "resume builds",
    "retry": "retry builds",
    "skip": "skip components",
    "extend": "extend the time of components",
    "limit": "change the limits of builds",
}

Document: TypeAlias = dict[str, Any]
"""A JSON object."""


def subject_of(verb: str) -> str:
    """The subject on which a scheduler is asked."""
    return f"{CONTROL}{verb}"


async def ask(bus: Bus, verb: str, document: Mapping[str, Any]) -> Document:
    """Put one question, or give one order, and return the answer; the caller owns the deadline.

    Args:
        bus: the connection.
        verb: ``list``, ``get``, ``why``, ``cancel``, ...
        document: what is asked, mostly ``{"id": build}``.

    Raises:
        SteeringError: the scheduler refuses, with its reason; or nobody answers there, with code ``nobody``;
            or this user may not ask, with code ``forbidden``.
        BusError: the bus cannot be used.
    """
    subject = subject_of(verb)
    try:
        message = await bus.request(subject, encode(document))
    except NoResponders:
        text = "no scheduler answers: start one with `scheduler serve`, or see whether --nats-url is right"
        raise SteeringError("nobody", text) from None
    except NotPermitted as error:
        raise SteeringError(FORBIDDEN, f"this user may not {_WORDS[verb]}: {error.refusal}") from None
    try:
        answer = msgspec.json.decode(message.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        answer = None
    refused = (message.headers or {}).get("Nats-Service-Error")
    if refused is not None or (isinstance(answer, dict) and isinstance(answer.get("error"), dict)):
        said = answer.get("error") if isinstance(answer, dict) else None
        said = said if isinstance(said, dict) else {}
        raise SteeringError(
            str(said.get("code") or "internal"), str(said.get("message") or refused or "refused")
        )
    if not isinstance(answer, dict):
        raise SteeringError("unreadable", f"what answers on {subject} is not a scheduler")
    return answer


async def list_builds(bus: Bus, *, finished: bool) -> list[Mapping[str, Any]]:
    """Every build that a scheduler knows, the newest last; those that are over only with ``finished``.

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
    """One build with all of its components, page by page.

    The pages are of different moments: everything but the components is that of the first one, ``seq`` too.
    Whoever applies the events beyond that number has the truth in the end, as each event says the state that
    its component is in from then on.

    Args:
        bus: the connection.
        build: its id.
        graph: whether each component names what it ``needs``.

    Raises:
        SteeringError: see `ask`.
        BusError: the bus cannot be used.
    """
    question: Document = {"id": build, "components": True, "graph": graph, "from": 0, "limit": PAGE}
    whole = await ask(bus, "get", question)
    components = objects(whole.get("components"))
    following, last = whole.get("next"), 0
    # Pages only go forward.
    while isinstance(following, int) and following > last:
        question["from"] = last = following
        page = await ask(bus, "get", question)
        components += objects(page.get("components"))
        following = page.get("next")
    whole["components"], whole["next"] = components, None
    return whole


async def get_summary(bus: Bus, build: str) -> Document:
    """One build without its components.

    Raises:
        SteeringError: see `ask`.
        BusError: the bus cannot be used.
    """
    return await ask(bus, "get", {"id": build, "components": False})
