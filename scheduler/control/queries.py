"""Answers the verbs that change nothing, except those about reports (`scheduler.control.report_queries`)."""

from typing import Final

from scheduler.control import verbs
from scheduler.control.finder import vertex_of
from scheduler.control.parts import Parts
from scheduler.control.registry import Verbs
from scheduler.control.verbs import PAGE, Document
from scheduler.definition.strictjson import encode
from scheduler.errors import InvalidBuild, Refused
from scheduler.fleet.lease import document
from scheduler.runtime.courtesy import give_way
from scheduler.runtime.pace import paced
from scheduler.stores.slices import encode as encode_in_slices
from scheduler.supervision.explainer import Explainer, Seen, interruptions, summary
from scheduler.supervision.reasons import Knowledge

QUERIES: Final[Verbs[Parts]] = Verbs()

_SLICE: Final = 100
"""Builds between two turns of other work: a millisecond."""


@QUERIES.register(verbs.List)
async def list_builds(parts: Parts, request: verbs.List) -> verbs.Builds:
    """List the builds that run or are quarantined here, and with ``all`` the finished ones."""
    most = min(request.limit, PAGE)
    after = request.after or ""
    roster = parts.roster
    here, quarantined = set(roster.ids()), roster.quarantined
    finished = await parts.reports.finished() if request.all else {}
    known = sorted(one for one in {*here, *quarantined, *finished} if one > after)
    found: list[Document] = []
    async for build in paced(known[:most], every=_SLICE, pause=give_way):
        seen = roster.see(build)
        if seen is not None:
            found.append(summary(seen) | parts.owned(build))
        elif build in quarantined:
            why = quarantined[build]
            found.append({"id": build, "action": "", "status": "quarantined", "error": why})
        elif build in finished:
            found.append(finished[build])
    return verbs.Builds(builds=found, next=known[most - 1] if len(known) > most else None)


@QUERIES.register(verbs.Get)
async def get_build(parts: Parts, request: verbs.Get) -> Document:
    """Show a build as it stands, with a page of its components."""
    seen = await parts.builds.find(request.id)
    eta, overdue = await parts.eta.end(seen)
    answer = (
        summary(seen)
        | parts.owned(request.id)
        | {
            "seq": seen.sequence,
            "source": seen.source,
            "now": seen.timings.clock(),
            "eta": eta,
            "overdue": overdue,
            "paused": seen.plan.state.paused,
            "order": None if seen.order is None else seen.order.document(),
            "limits": _limits(parts, seen),
            "components": [],
            "next": None,
        }
    )
    if (trace := seen.plan.requests.trace) is not None:
        answer["trace"] = trace.document()
    if request.components:
        total = len(seen.plan.phases)
        start = min(request.start, total)
        end = min(total, start + min(request.limit, PAGE))
        if request.graph:
            answer |= interruptions(seen)
        answer["components"] = await parts.pages.page(seen, start, end, graph=request.graph)
        answer["next"] = end if end < total else None
    return answer


def _limits(parts: Parts, seen: Seen) -> list[Document]:
    """Return the limits that components of a build wait for, and how many do."""
    if seen.walk is None:
        return []
    waiting = parts.slots.waiting(seen.plan)
    return [{"limit": limit, "waiting": number} for limit, number in waiting.items()]


@QUERIES.register(verbs.Why)
async def explain(parts: Parts, request: verbs.Why) -> verbs.Reasons:
    """Explain what a build or one of its components waits for."""
    seen = await parts.builds.find(request.id)
    vertex = None if request.component is None else vertex_of(seen.plan, request.component)
    knowledge = Knowledge(parts.usual)
    subjects = Explainer(seen, parts.slots, parts.store).subjects(vertex)
    if parts.subscribers is not None and subjects:
        knowledge = Knowledge(parts.usual, await parts.subscribers.among(subjects))
    explainer = Explainer(seen, parts.slots, parts.store, knowledge)
    reasons, more = explainer.build() if vertex is None else ([explainer.component(vertex)], 0)
    owned = parts.owned(request.id)
    return verbs.Reasons(id=seen.plan.build.id, status=seen.status, reasons=reasons, more=more, **owned)


@QUERIES.register(verbs.History)
async def list_orders(parts: Parts, request: verbs.History) -> verbs.OrderPage:
    """List the orders about a build; of one that has ended where no log is kept, as long as its report is."""
    try:
        seen = await parts.builds.find(request.id)
        status, orders = seen.status, seen.orders
    except Refused:
        kept = None if parts.kept is None else parts.kept.get(request.id)
        if kept is None:
            raise
        status, orders = kept.status, kept.orders
    known = list(orders)[request.start : request.start + min(request.limit, PAGE)]
    shown: list[Document] = []
    room = parts.most_bytes() // 2
    for order in known:
        room -= len(encode(order.document()))
        if room < 0 and shown:
            break
        shown.append(order.document())
    following = request.start + len(shown)
    return verbs.OrderPage(
        id=request.id,
        status=status,
        orders=shown,
        dropped=orders.total - len(orders),
        next=following if following < len(orders) else None,
    )


@QUERIES.register(verbs.Plan)
async def preview(parts: Parts, request: verbs.Plan) -> Document:
    """Predict what a build will do."""
    if request.build is None:
        if request.id is None:
            raise Refused("invalid", "id: a text is required; or build: the build itself, an object")
        return await parts.previews.preview(await parts.builds.find(request.id))
    try:
        prepared = await parts.reader.read_submitted(await encode_in_slices(request.build))
    except InvalidBuild as error:
        text = "; ".join(str(problem) for problem in error.problems)
        raise Refused("invalid", f"build: {text}") from None
    return await parts.eta.preview(prepared)


@QUERIES.register(verbs.Instances)
async def list_instances(parts: Parts, _: verbs.Instances) -> verbs.InstanceList:
    """List the instances that share the builds of the store, as this one sees them, or that stand by."""
    if parts.election is not None:
        name, found = parts.election.name, await parts.election.instances()
        return verbs.InstanceList(fleet=False, store=parts.store.name, answered=name, instances=found)
    if parts.fleet is None:
        return verbs.InstanceList(fleet=False, store=parts.store.name, answered="", instances=[])
    fleet = parts.fleet
    # How old the leases of others are cannot be told while they cannot be read; but ours is known.
    shown = [
        document(one, holds=fleet.fresh or one.lease.instance != fleet.instance) for one in fleet.members()
    ]
    return verbs.InstanceList(fleet=True, store=parts.store.name, answered=fleet.name, instances=shown)
