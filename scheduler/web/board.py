"""Board: place where a process hangs out what may be read of it, from its first moment on."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from attrs import define, field

from scheduler.metrics import catalogue as names
from scheduler.metrics.turns import Turns
from scheduler.runtime.executor import Executor, ThreadExecutor
from scheduler.web.console import Console
from scheduler.web.figures import Family, Figures

CONNECTING = "it connects to the broker"


@define(eq=False)
class Board:
    """Board of one process.

    While the broker is away at the start there is no service, and the process lives all the same.
    """

    turns: Turns | None = None
    """Turns of the loop; None where they are not measured."""
    executor: Executor = field(factory=ThreadExecutor)
    """Writes texts beside the loop."""
    figures: Figures | None = None
    """Figures of the service, while there is one."""
    console: Console | None = None
    """What the page may use of the service, while there is one."""
    page: str = ""
    """Address of the page; empty where there is none."""
    on_console: Callable[[Console], object] = lambda _: None
    """Callback of the page for each service that comes; synchronous."""

    @contextmanager
    def showing(self, figures: Figures, console: Console | None = None) -> Iterator[None]:
        """Show the figures of a service, and let the page use it, until the context is left."""
        self.figures, self.console = figures, console
        if console is not None:
            console.page = self.page
            self.on_console(console)
        try:
            yield
        finally:
            self.figures = self.console = None

    def trouble(self) -> str:
        """Return why no build should be sent here now; empty where it should."""
        return CONNECTING if self.figures is None else self.figures.health.trouble()

    async def families(self) -> AsyncIterator[Family]:
        """Yield all metrics that there are now."""
        turns = self.turns
        if turns is not None:
            yield names.TURNS, [((), turns.seconds.copy())]
            yield names.LONGEST_TURN, [((), turns.longest)]
            yield names.LAG, [((), turns.lag)]
        if self.figures is not None:
            async for family in self.figures.families():
                yield family
