"""Makes notifications of what happens to builds, and decides where they go.

They say what the events of `scheduler.supervision.feed` say: the first failure of a run, a component that
waits for a person, the end. The end is told when the report is out, which is the truth.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import structlog

from scheduler.config import Settings
from scheduler.definition.destinations import AllowedHosts, Destination, destinations_of
from scheduler.notifying import Kind, Notice, Notifier
from scheduler.notifying.notice import notice_of
from scheduler.notifying.poster import Poster
from scheduler.plan import Phase, Plan
from scheduler.runtime.log_limits import RateLimitedLog

_log = structlog.get_logger()

_ERROR_SHOWN: Final = 1_000
"""Characters shown of an error; all of it is in the report."""
_MOST_COLONS: Final = 8
"""Places in an error at which the id of its component is looked for."""


class Notices:
    """Notifications of the builds of a process.

    Args:
        send: queues a notification for destinations.
        own: destinations of every build.
        allowed: hosts that builds may name; None: they name none.
        instance: name of this scheduler.
    """

    def __init__(
        self,
        send: Callable[[Notice, Sequence[Destination]], None],
        *,
        own: Sequence[Destination],
        allowed: AllowedHosts | None,
        instance: str,
    ) -> None:
        self._send = send
        self._own = own
        self._allowed = allowed
        self._instance = instance
        self._log = RateLimitedLog(_log)

    def failing(self, plan: Plan, at: float) -> None:
        """Tell that a component has failed for good, the first one of the run.

        Args:
            plan: plan of the build.
            at: time, seconds since 1970.
        """
        status, error = _status_of(plan), plan.state.cause
        self._tell(Kind.FAILING, plan, at, status=status, component=failed_component(plan), error=error)

    def gated(self, plan: Plan, at: float, component: str) -> None:
        """Tell that a component waits for a person; again after a retry, as that asks again."""
        asked = plan.attempt(plan.graph.index[component])
        status = _status_of(plan)
        self._tell(Kind.GATED, plan, at, status=status, component=component, error=None, asked=asked)

    def finished(self, plan: Plan, at: float) -> None:
        """Tell that the report of a build is out."""
        state = plan.state
        status = "done" if state.cause is None else "cancelled" if state.cancelled else "errored"
        component = failed_component(plan)
        self._tell(Kind.FINISHED, plan, at, status=status, component=component, error=state.cause)

    def _tell(
        self,
        kind: Kind,
        plan: Plan,
        at: float,
        *,
        status: str,
        component: str | None,
        error: str | None,
        asked: int = 1,
    ) -> None:
        destinations = self._destinations(plan)
        if not destinations:
            return
        build, fields = plan.build, plan.build.fields
        notice = notice_of(
            kind,
            build.id,
            mark=plan.mark,
            run=plan.state.run,
            at=at,
            status=status,
            name=fields.get("name"),
            action=build.action,
            counts=plan.phases.shown(),
            total=len(plan.phases),
            instance=self._instance,
            component=component,
            asked=asked,
            error=None if error is None else plan.texts.masked(error, _ERROR_SHOWN),
        )
        self._send(notice, destinations)

    def _destinations(self, plan: Plan) -> list[Destination]:
        destinations = {one.url: one for one in self._own}
        if self._allowed is not None:
            found, problems = destinations_of(plan.build.fields.get("notify"), self._allowed)
            destinations |= {one.url: one for one in found}
            if problems:
                # Accepted by a process with other settings.
                self._log.warning(
                    "a build is not notified as it asks", build=plan.build.id, why=str(problems[0])
                )
        return list(destinations.values())


def failed_component(plan: Plan) -> str | None:
    """Return the component whose failure is the cause of a build's; None where it is another one."""
    cause = plan.state.cause or ""
    end = -1
    for _ in range(_MOST_COLONS):
        end = cause.find(": ", end + 1)
        if end < 0:
            return None
        vertex = plan.graph.index.get(cause[:end])
        if vertex is not None and plan.phases[vertex] is Phase.ERRORED:
            return cause[:end]
    return None


def _status_of(plan: Plan) -> str:
    if plan.state.halted:
        return "halted"
    return "paused" if plan.state.paused else "running"


@asynccontextmanager
async def open_notifier(settings: Settings, poster: Poster | None = None) -> AsyncIterator[Notifier | None]:
    """Send notifications, where the settings ask for them; otherwise there is no notifier.

    Args:
        settings: destinations, and the secret that signs.
        poster: posts; where it is None, one is made.

    Raises:
        InvalidSettings: the secret is not there any more, or the proxy cannot be used.
    """
    if not settings.notifies:
        yield None
        return
    async with AsyncExitStack() as stack:
        if poster is None:
            from scheduler.notifying.http import open_poster  # noqa: PLC0415 - it loads an HTTP client

            poster = await stack.enter_async_context(open_poster())
        notifier = Notifier(poster, settings.signing_keys())
        await stack.enter_async_context(notifier.open())
        yield notifier


def notices_of(settings: Settings, notifier: Notifier | None) -> Notices | None:
    """Return the notifications of builds, as the settings ask for them; None where they do not."""
    if notifier is None:
        return None
    return Notices(
        notifier.send,
        own=settings.destinations,
        allowed=settings.allowed_hosts,
        instance=settings.name,
    )


def counters_of(notifier: Notifier | None) -> Mapping[str, Any]:
    """Return what the answer to STATS says of notifications."""
    return {} if notifier is None else {"notifications": notifier.document()}
