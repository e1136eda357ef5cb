"""Structures of the answers in JSON, from which the OpenAPI document is made.

Where the control API makes a document, its structure in `scheduler.control.verbs` is the one that counts, or
a structure here names its main members. Further members may come: a reader ignores what it does not know.

One file on purpose: the form of every answer is found in one place.
"""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from scheduler.control.verbs import Document, OrderId

VERSION: Final = 1
"""Version of the answers."""

LETTERS: Final = {
    "waiting": "w",
    "running": "r",
    "retrying": "y",
    "gated": "g",
    "completed": "c",
    "errored": "e",
    "skipped": "s",
}
"""Letter of each state of a component."""

Seconds = Annotated[float, Meta(description="Seconds since the build was accepted.")]
Index = Annotated[int, Meta(ge=0, description="Number of a component: its place in `ids` of the layout.")]


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of the page."""


class Failure(Said, frozen=True, kw_only=True):
    """Answer to a request that was not carried out."""

    error: Annotated[str, Meta(description="Code, as in the control API, or that of the page.")]
    message: Annotated[str, Meta(description="What is wrong, and the cure, as one text.")]


class BuildRow(Said, frozen=True, kw_only=True):
    """A build in a list."""

    id: str
    status: Annotated[
        str, Meta(description="running, paused, halted, done, errored, cancelled or quarantined.")
    ]
    action: str
    name: str | UnsetType = UNSET
    run: int | UnsetType = UNSET
    total: int | UnsetType = UNSET
    counts: dict[str, int] | UnsetType = UNSET
    progress: Annotated[float, Meta(ge=0, le=1, description="Part of its components that is completed.")]
    accepted: Annotated[float, Meta(description="Seconds since 1970.")] | UnsetType = UNSET
    ended: Annotated[float, Meta(description="Seconds since 1970.")] | UnsetType = UNSET
    gated: Annotated[int, Meta(description="Components that wait for a person.")] | UnsetType = UNSET
    eta: Annotated[float | None, Meta(description="Seconds until its expected end.")] | UnsetType = UNSET
    overdue: Annotated[float | None, Meta(description="Seconds by which it is late.")] | UnsetType = UNSET
    waiting: Annotated[str, Meta(description="What it waits for; the main reason.")] | UnsetType = UNSET
    error: str | UnsetType = UNSET
    owner: str | UnsetType = UNSET
    epoch: int | UnsetType = UNSET


class BuildList(Said, frozen=True, kw_only=True):
    """Page of the builds of all instances, those that run first, then the newest first."""

    now: Annotated[float, Meta(description="Seconds since 1970.")]
    builds: list[BuildRow]
    matching: Annotated[int, Meta(description="Number of builds that match, on all pages.")]
    statuses: Annotated[dict[str, int], Meta(description="Number of all builds by status.")]
    next: Annotated[str | None, Meta(description="Where the next page starts: its `after`.")]
    silent: Annotated[list[Document], Meta(description="Instances that did not answer.")]


class RunningComponent(Said, frozen=True, kw_only=True, omit_defaults=True):
    """A component in flight."""

    id: str
    index: Index
    sent: Annotated[float | None, Meta(description="When its request left, by the clock of `now`.")] = None
    attempt: int = 1
    progress: float | None = None
    message: Annotated[str, Meta(description="Last word of its connector.")] = ""


class FailedComponent(Said, frozen=True, kw_only=True, omit_defaults=True):
    """A component that failed, or will be tried again."""

    id: str
    index: Index
    error: str
    attempt: int = 1
    retry_at: Annotated[
        float | None, Meta(description="When the next attempt follows, by the clock of `now`.")
    ] = None


class Status(Said, frozen=True, kw_only=True):
    """A build as it stands: what `get` answers, without its components, and what is in flight."""

    id: str
    status: str
    action: str
    name: str
    run: int
    seq: Annotated[int, Meta(description="Number of its last event.")]
    now: Annotated[float, Meta(description="Clock of its owner, seconds since 1970.")]
    accepted: float
    ended: float | UnsetType = UNSET
    total: int
    counts: Annotated[dict[str, int], Meta(description="Components by state.")]
    eta: float | None
    overdue: float | None
    paused: bool
    gated: int | UnsetType = UNSET
    error: str | UnsetType = UNSET
    report: Annotated[str, Meta(description="Why its report is not out yet.")] | UnsetType = UNSET
    order: Annotated[Document | None, Meta(description="Order that it stands where it does for.")]
    limits: Annotated[list[Document], Meta(description="Limits that are reached: `limit`, `waiting`.")]
    owner: str | UnsetType = UNSET
    epoch: int | UnsetType = UNSET
    running: Annotated[list[RunningComponent], Meta(description="The longest in flight first; at most 50.")]
    errors: Annotated[list[FailedComponent], Meta(description="At most 50; `counts` has their number.")]
    retrying: Annotated[list[FailedComponent], Meta(description="At most 50.")]
    gates: Annotated[list[str], Meta(description="Components that wait for a person; at most 50.")]


class States(Said, frozen=True, kw_only=True):
    """States of all components of a build, in the order of the layout."""

    revision: int
    states: Annotated[str, Meta(description="One letter for each component.")]
    names: Annotated[dict[str, str], Meta(description="State by letter.")]


class Snapshot(Said, frozen=True, kw_only=True):
    """First event of a stream of a build, and the one that a slow viewer gets: all of it."""

    revision: int
    key: Annotated[str, Meta(description="Key of the layout that the indices are of.")]
    status: Status
    states: str
    trouble: Annotated[str, Meta(description="Why what is shown may be old; empty where it is not.")]


class Update(Said, frozen=True, kw_only=True, omit_defaults=True):
    """Event of a stream of a build: what has changed."""

    revision: int
    rows: Annotated[list[tuple[Index, str]], Meta(description="Components and their letters.")] = []
    states: Annotated[str, Meta(description="All letters, in the place of `rows`, where most changed.")] = ""
    status: Annotated[Document, Meta(description="Members of the status that changed.")] = {}
    events: Annotated[list[Document], Meta(description="The last events, as in the list of events.")] = []
    trouble: Annotated[str | None, Meta(description="As in the snapshot; null where unchanged.")] = None


class End(Said, frozen=True, kw_only=True, omit_defaults=True):
    """Last event of a stream."""

    reason: Annotated[
        Literal["finished", "stopping", "gone"],
        Meta(
            description="finished: the build has ended. stopping: this process ends. gone: there is no such"
            " build any more. After stopping: connect again."
        ),
    ]
    message: str = ""


class BuildsSnapshot(Said, frozen=True, kw_only=True):
    """First event of the stream of all builds; as a list of builds, up to 200 of them."""

    revision: int
    now: float
    builds: list[BuildRow]
    statuses: dict[str, int]
    silent: list[Document]
    trouble: str


class BuildsUpdate(Said, frozen=True, kw_only=True, omit_defaults=True):
    """Event of the stream of all builds: rows that changed."""

    revision: int
    now: float
    builds: list[BuildRow] = []
    gone: Annotated[list[str], Meta(description="Builds that are not among the 200 any more.")] = []
    statuses: dict[str, int] | None = None
    silent: list[Document] | None = None
    trouble: str | None = None


class Fold(Said, frozen=True, kw_only=True):
    """Components of one type in one wave, to be drawn as one where they are small."""

    wave: int
    type: Annotated[int, Meta(description="Place in `types`.")]
    x: float
    y: float
    width: float
    height: float
    members: list[Index]


class Layout(Said, frozen=True, kw_only=True):
    """Places of the components of a build: columns by wave, one unit from one to the next."""

    version: int = VERSION
    key: Annotated[str, Meta(description="Changes with the structure; also the ETag.")]
    method: Annotated[
        Literal["ordered", "waves"],
        Meta(description="ordered: few crossings; waves: plain, since ordering took too long."),
    ]
    ids: list[str]
    types: Annotated[list[str], Meta(description="Names of types.")]
    type: Annotated[list[int], Meta(description="Type of each component, a place in `types`.")]
    actions: list[str]
    action: Annotated[list[int], Meta(description="Action of each component, a place in `actions`.")]
    providers: list[str]
    provider: list[int]
    gates: Annotated[list[Index], Meta(description="Components that wait for a person when due.")]
    x: list[float]
    y: list[float]
    wave: Annotated[list[int], Meta(description="Length of the longest chain before each component.")]
    edges: Annotated[list[int], Meta(description="Pairs, flat: dependency, dependent.")]
    critical: Annotated[list[Index], Meta(description="Critical path as predicted, first to last.")]
    width: float
    height: float
    folds: list[Fold]


class ComponentPage(Said, frozen=True, kw_only=True):
    """Page of the components of a build: what `get` answers of each, with `index` and `age`."""

    id: str
    status: str
    now: float
    components: list[Document]
    matching: int
    counts: Annotated[dict[str, int], Meta(description="Matching components by state.")]
    types: Annotated[dict[str, int], Meta(description="All components by type.")]
    next: Annotated[int | None, Meta(description="Where the next page starts: its `after`.")]


class ComponentDetail(Said, frozen=True, kw_only=True):
    """One component: as in the page of components, with its neighbours, and what it waits for."""

    id: str
    status: str
    now: float
    component: Document
    needs: list[Document]
    needed_by: Annotated[list[Document], Meta(description="`id` and `state`; at most 1,000.")]
    why: Annotated[list[Document], Meta(description="Reasons, as `why` answers.")]


class TimelineAnswer(Said, frozen=True, kw_only=True):
    """Times of a build by columns; place n of each column is of one component that was ever due."""

    id: str
    status: str
    began: Annotated[float, Meta(description="Seconds since 1970; all other times count from there.")]
    length: Annotated[float, Meta(description="Seconds from the first one due to the last one's end.")]
    live: Annotated[bool, Meta(description="Whether what is in flight is cut off at `length`.")]
    index: list[Index]
    lane: Annotated[list[int], Meta(description="Row; those in a row do not overlap.")]
    lanes: int
    due: list[float]
    sent: Annotated[list[float], Meta(description="Start of the last attempt.")]
    end: list[float]
    attempts: Annotated[
        list[tuple[int, float, float]], Meta(description="Earlier attempts: place, start, end.")
    ]
    waits: Annotated[
        dict[str, list[tuple[int, float, float]]],
        Meta(description="By reason (slots, retry, pause, outage, approval): place, start, end."),
    ]
    pauses: list[tuple[float, float]]
    outages: list[tuple[float, float]]
    critical: Annotated[list[int], Meta(description="Critical path, as places in the columns.")]
    most: Annotated[int, Meta(description="Most components at work at a time.")]
    working: Annotated[float, Meta(description="Seconds of work, all components together.")]
    waiting: Annotated[dict[str, float], Meta(description="Seconds of waiting by reason, all together.")]


class EventPage(Said, frozen=True, kw_only=True):
    """Page of what happened in a build, in order of time."""

    id: str
    status: str
    total: int
    events: Annotated[
        list[Document],
        Meta(
            description="`n`, `time` (since 1970), `event`; and `component`, `attempt`, `seconds`, `error`,"
            " `order`, `by`, `vouched`, `reason` where they apply."
        ),
    ]
    next: Annotated[int | None, Meta(description="Where the next page starts: its `after`.")]


class Compared(Said, frozen=True, kw_only=True):
    """A prediction beside what happened."""

    subject: str
    components: int
    predicted: Annotated[float, Meta(description="Seconds for one request.")]
    source: Annotated[str, Meta(description="given, recorded or default.")]
    done: Annotated[int, Meta(description="Components that have completed.")]
    mean: Annotated[float | None, Meta(description="Mean seconds of those.")]
    longest: float | None


class PlanAnswer(Said, frozen=True, kw_only=True):
    """Prediction for a build, and what happened."""

    id: str
    status: str
    plan: Annotated[Document, Meta(description="What `plan` answers, without the components of waves.")]
    seconds: Annotated[float, Meta(description="Predicted duration.")]
    took: Annotated[float, Meta(description="Seconds so far, or to the end.")]
    subjects: list[Compared]
    predicted_path: Annotated[list[Document], Meta(description="`id`, `seconds`, `actual`.")]
    critical_path: Annotated[list[Document], Meta(description="`id`, `seconds`: as it happened.")]


class OrderRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Order about a build; its members are those of the command in the control API."""

    order: Annotated[
        Literal["pause", "resume", "cancel", "retry", "skip", "approve", "reject"],
        Meta(description="What is to be done."),
    ]
    component: str | None = None
    start: Annotated[str | None, Meta(description="For retry: this one and all that depends on it.")] = (
        msgspec.field(default=None, name="from")
    )
    now: bool = False
    output: dict[str, Any] | None = None
    reason: str | None = None
    key: Annotated[
        OrderId | None, Meta(description="Drawn by the sender: an order is carried out once for each.")
    ] = None


class Session(Said, frozen=True, kw_only=True):
    """Name of the one who asks, and what they may do."""

    user: Annotated[str, Meta(description="Name that a proxy vouches for, or that was told at the login.")]
    vouched: bool
    orders: Annotated[bool, Meta(description="Whether orders are taken here, from this user.")]
    login: Annotated[bool, Meta(description="Whether one can log in with a token.")]
    lists_ended: Annotated[
        bool, Meta(description="Whether builds that have ended are listed: the store is JetStream.")
    ]
    csrf: Annotated[str, Meta(description="For the header x-scheduler-csrf; empty without orders.")]
    version: str
    instance: str
