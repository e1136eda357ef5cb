"""Answers the questions of the page, each as JSON."""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial
from hashlib import sha256
from typing import Any, Final
from weakref import WeakKeyDictionary

import trio
from attrs import define, field

from scheduler.client.lenient import objects
from scheduler.control.verbs import PAGE, Document
from scheduler.definition.strictjson import encode
from scheduler.errors import Refused
from scheduler.web.live.table import table_of
from scheduler.web.page.answers import LETTERS
from scheduler.web.page.asking import OWNER
from scheduler.web.page.components import MOST, components_of, neighbours_of, vertex_of
from scheduler.web.page.listing import page_of, statuses_of
from scheduler.web.page.replies import Reply, answer, encoded
from scheduler.web.page.requests import Request
from scheduler.web.page.structure import Whole
from scheduler.web.page.times import MOST_EVENTS, comparison_of, events_of, timeline_of
from scheduler.web.page.views import Views

_PAGE: Final = 200
"""Builds or components in an answer, where nobody says how many."""
_EVENTS: Final = 500
_SHARED: Final = 4 * 1024 * 1024
"""Bytes of the answers of a build that are kept for others; the last one is in any case."""
_MOST_ORDERS: Final = 10_000
"""Orders of one build that are shown among its events."""


@define(eq=False)
class _Shared:
    """Answers that were made of one whole build."""

    made: OrderedDict[str, bytes] = field(factory=OrderedDict)
    turn: trio.Lock = field(factory=trio.Lock)


class Reads:
    """Answers questions.

    Args:
        views: what they are made of.
    """

    def __init__(self, views: Views) -> None:
        self._desk = views.desk
        self._wholes = views.wholes
        self._listings = views.listings
        self._details = views.details
        self._layouts = views.layouts
        self._shared_of: WeakKeyDictionary[Whole, _Shared] = WeakKeyDictionary()
        self._of_a_build: dict[str, Callable[[Request, str], Awaitable[Reply]]] = {
            "layout": self._layout,
            "states": self._states,
            "components": self._components,
            "timeline": self._timeline,
            "events": self._events,
            "report": self._report,
            "why": self._why,
            "plan": self._plan,
        }

    async def builds(self, request: Request) -> Reply:
        """Answer `answers.BuildList`."""
        statuses = statuses_of(request.text("state"))
        limit = request.number("limit", _PAGE, low=1, high=PAGE)
        listing = await self._listings.get()
        job = partial(
            page_of, listing, statuses, request.text("search"), limit=limit, after=request.text("after")
        )
        rows, matching, following = await self._desk.beside(100 * len(listing.rows), job)
        return answer(
            {
                "now": time.time(),
                "builds": await self._details.add(rows),
                "matching": matching,
                "statuses": listing.statuses,
                "next": following,
                "silent": listing.silent,
            }
        )

    async def build(self, request: Request, build: str, rest: tuple[str, ...]) -> Reply:
        """Answer a question about one build.

        Args:
            request: the request.
            build: id of the build.
            rest: segments of the path behind it.

        Raises:
            Refused: there is nothing of this path, or the question cannot be answered.
        """
        match rest:
            case ():
                return await self._status(build)
            case ("components", component):
                return await self._component(build, component)
            case (name,) if name in self._of_a_build:
                return await self._of_a_build[name](request, build)
            case _:
                raise Refused("unknown", "there is nothing at this path")

    async def _made(self, job: Callable[[], Any]) -> Reply:
        """Return what a job makes, as JSON; it is encoded beside the loop too."""
        body: bytes = await self._desk.executor.run(OWNER, lambda: encoded(job()), long=True)
        return Reply(body)

    async def _shared(self, found: Whole, job: Callable[[], Any], *asked: object) -> Reply:
        """Return what a job makes of a whole build; made once for all who ask the same.

        Args:
            found: the build.
            job: makes the answer.
            asked: all that the answer depends on beside the build.
        """
        key = repr(asked)
        shared = self._shared_of.setdefault(found, _Shared())
        async with shared.turn:
            body = shared.made.get(key)
            if body is None:
                body = (await self._made(job)).body
                shared.made[key] = body
                while len(shared.made) > 1 and sum(map(len, shared.made.values())) > _SHARED:
                    shared.made.popitem(last=False)
        return Reply(body)

    async def _status(self, build: str) -> Reply:
        summary = await self._desk.ask("get", {"id": build, "components": False})
        self._wholes.note(build, summary)
        found = await self._wholes.get(build)
        return await self._made(lambda: _table(found).describe(summary))

    async def _layout(self, request: Request, build: str) -> Reply:
        structure = (await self._wholes.get(build)).structure
        etag = f'"{structure.key}"'
        headers = {"etag": etag, "cache-control": "private, no-cache"}
        if etag in request.headers.get("if-none-match", ""):
            return Reply(b"", status=304, headers=headers)
        layout = await self._layouts.get(build, structure)
        # One that lacks something has no tag, so that it is not shown for ever.
        return Reply(layout.body, headers=headers if layout.final else None)

    async def _states(self, _request: Request, build: str) -> Reply:
        found = await self._wholes.get(build)

        def made() -> Document:
            table = _table(found)
            names = {letter: state for state, letter in LETTERS.items()}
            return {"revision": table.sequence, "states": table.letters.decode(), "names": names}

        return await self._shared(found, made, "states")

    async def _components(self, request: Request, build: str) -> Reply:
        limit = request.number("limit", _PAGE, low=1, high=MOST)
        after = request.number("after", 0, low=0, high=10**9)
        found = await self._wholes.get(build)
        search, kind, sort = request.text("search"), request.text("type"), request.text("sort") or "age"
        states = frozenset(filter(None, request.text("state").split(",")))
        job = partial(
            components_of, found, search=search, states=states, kind=kind, sort=sort, limit=limit, after=after
        )
        return await self._shared(found, job, "components", search, sorted(states), kind, sort, limit, after)

    async def _component(self, build: str, component: str) -> Reply:
        found = await self._wholes.get(build)
        vertex = vertex_of(found, component)
        reasons: list[Document] = []
        try:
            why = await self._desk.ask("why", {"id": build, "component": component})
            reasons = [dict(one) for one in objects(why.get("reasons"))]
        except Refused as refused:
            if refused.code not in {"unavailable", "unknown"}:
                raise
        job = partial(neighbours_of, found, vertex)
        return await self._made(lambda: job() | {"why": reasons})

    async def _timeline(self, _request: Request, build: str) -> Reply:
        found = await self._wholes.get(build)
        return await self._shared(found, partial(timeline_of, found), "timeline")

    async def _events(self, request: Request, build: str) -> Reply:
        limit = request.number("limit", _EVENTS, low=1, high=MOST_EVENTS)
        after = request.number("after", 0, low=-1, high=10**9)
        found = await self._wholes.get(build)
        orders: list[Document] = []
        question: Document = {"id": build, "limit": PAGE, "from": 0}
        while len(orders) < _MOST_ORDERS:
            page = await self._desk.ask("history", question)
            orders += map(dict, objects(page.get("orders")))
            following = page.get("next")
            if not isinstance(following, int) or following <= question["from"]:
                break
            question["from"] = following
        job = partial(events_of, found, orders, after=after, limit=limit)
        return await self._shared(found, job, "events", after, limit, sha256(encode(orders)).digest())

    async def _report(self, request: Request, build: str) -> Reply:
        question: Document = {"id": build, "limit": request.number("limit", PAGE, low=1, high=PAGE)}
        for name, low in (("run", 1), ("from", 0)):
            if name in request.parameters:
                question[name] = request.number(name, low, low=low, high=10**9)
        question |= {
            name: request.text(name) for name in ("identity", "component", "field") if request.text(name)
        }
        found = await self._desk.ask("report", question)
        return await self._made(lambda: found)

    async def _why(self, request: Request, build: str) -> Reply:
        component = request.text("component")
        found = await self._desk.ask("why", {"id": build} | ({"component": component} if component else {}))
        return answer(found)

    async def _plan(self, _request: Request, build: str) -> Reply:
        found = await self._wholes.get(build)
        plan = await self._desk.ask("plan", {"id": build})
        return await self._made(partial(comparison_of, found, plan))


def _table(found: Whole) -> Any:
    return table_of(found.structure.ids, found.structure.index, found.answer, found.rows)
