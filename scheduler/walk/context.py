"""The context of one build's walk: the data and ports that its parts share."""

from attrs import frozen

from scheduler.definition.reply_subjects import Tokens
from scheduler.dispatch.slots import Slots
from scheduler.plan import Plan
from scheduler.walk.component import Runs
from scheduler.walk.ports import Observer, Resending, Sender
from scheduler.walk.rendered_ahead import RenderedAhead
from scheduler.walk.rendering import Renderer
from scheduler.walk.tasks import Tasks


@frozen(eq=False)
class Context:
    """Ports that a walk is given, and data that its parts share."""

    plan: Plan
    """Plan of the build: it decides. The slots know the build by it."""
    connectors: Sender
    """Port for requests and their replies."""
    slots: Slots
    """Bounds on the requests in flight, of all builds."""
    observer: Observer
    """Receiver of the build's events."""
    resending: Resending
    """Rule, by subject, for sending a request without a reply again."""
    tokens: Tokens | None
    """Tokens of the reply subjects, by which a later process knows them; None: only this process does."""
    runs: Runs
    """Runs of the components."""
    tasks: Tasks
    """Tasks of the components."""
    unsent: RenderedAhead
    """Rendered requests that wait for room."""
    renderer: Renderer
    """Renderer of components that take long."""
