"""What the parts of one build's walk share."""

from attrs import frozen

from scheduler.definition.reply_subjects import Tokens
from scheduler.dispatch.slots import Slots
from scheduler.plan import Plan
from scheduler.walk.component import Runs
from scheduler.walk.ports import Observer, Resending, Sender
from scheduler.walk.rendering import Renderer
from scheduler.walk.tasks import Tasks
from scheduler.walk.unsent import Unsent


@frozen(eq=False)
class Context:
    """What is given to a walk, and the data that its parts share."""

    plan: Plan
    """Decides. The slots know the build by it."""
    connectors: Sender
    """Takes requests, gives replies."""
    slots: Slots
    """How many requests may be in flight, of all builds."""
    observer: Observer
    """Is told of everything."""
    resending: Resending
    """When a request without a reply is sent again."""
    tokens: Tokens | None
    """Makes the reply subjects by which a later process knows them; None: only this process does."""
    runs: Runs
    """Of the components."""
    tasks: Tasks
    """Of the components."""
    unsent: Unsent
    """Requests that wait for room."""
    renderer: Renderer
    """For components that take long."""
