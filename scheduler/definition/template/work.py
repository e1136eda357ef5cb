"""Budgets for rendering: units of work for a component and for a build, and a clock beside them.

A unit is the time in which about one byte of JSON is written in the worst kind of step: a million of them
take at most 25 ms of one processor, whatever a template does. A loop over anything from outside pays before
each round, so that the count never lags far behind the work.
"""

from collections.abc import Callable
from typing import Final

from scheduler.errors import TemplateError
from scheduler.runtime.yielding import yield_now

MAX_WORK = 8 * 1024 * 1024
"""Units for one component each time it is rendered: 0.2 s at the very worst."""
INLINE_WORK = 80_000
"""Units that may be spent while other tasks wait: 2 ms."""
_BUILD_WORK = 32 * 1024 * 1024
_WORK_PER_CHANGE = 8 * 1024
_BETWEEN_LOOKS = 20_000
"""Units between two looks at the clock, at which other tasks have a turn: 0.5 ms."""


def build_work(changes: int) -> int:
    """Return the units for all renderings of a build: 0.8 s, and 0.2 ms for each of its changes."""
    return _BUILD_WORK + _WORK_PER_CHANGE * changes


def free(_: int, /) -> None:
    """Charge nothing: for work that is not counted."""


class AbortedError(TemplateError):
    """The whole walk must end, whatever it was about to skip: because of a circle, or too much work."""


class ExhaustedError(AbortedError):
    """There was more work to do than is allowed."""

    def __init__(self, message: str, *, certain: bool) -> None:
        self.certain = certain
        """Whether every other attempt would fail as well: because of a limit, not because of the remaining
        time."""
        super().__init__(message)


class Laborious(AbortedError):
    """There is more to do than others should wait for: to be done again elsewhere, from the beginning."""


class Work:
    """A budget of work.

    Args:
        left: units.
        expired: function that says whether there is no more time, called now and then (the core has no
            clock);
            None: there always is.
        inline: whether work beyond it is to be done again in a thread (`Laborious`), or not at all.
        whose: owner of the limit, for the message.
    """

    __slots__ = (
        "_certain",
        "_inline",
        "_limit",
        "_look",
        "_parent",
        "_start",
        "_whose",
        "exhausted",
        "expired",
        "left",
    )

    def __init__(
        self,
        left: int = MAX_WORK,
        expired: Callable[[], bool] | None = None,
        *,
        inline: bool = False,
        whose: str = "a component",
    ) -> None:
        self.left = left
        self.expired = expired
        self._start = self._limit = left
        self._inline = inline
        self._whose = whose
        self._parent: Work | None = None
        self._certain = False
        self.exhausted = False
        """Whether some work was found to be certain to exceed its limit."""
        self._look = max(0, left - _BETWEEN_LOOKS) if expired is None else left

    @classmethod
    def of_build(cls, changes: int) -> "Work":
        """Return the budget for all renderings of a build with so many changes."""
        work = cls(build_work(changes), whose="a build")
        work._certain = True
        return work

    def spend(self, units: int) -> None:
        """Take ``units`` off.

        Raises:
            ExhaustedError: there are not so many left, or there is no more time.
            Laborious: there are not so many left, of those that may be spent inline.
        """
        self.left -= units
        if self.left < self._look:
            self._judge()

    def spend_shared(self, units: int) -> None:
        """Take ``units`` off for work that is done once for the whole build: they are not this component's.

        Raises as `spend`.
        """
        if self._inline or self._parent is None:
            self.spend(units)
        else:
            self._parent.spend(units)
            self.spend(0)

    @property
    def inline(self) -> bool:
        """Whether other tasks wait meanwhile."""
        return self._inline

    @property
    def spent(self) -> int:
        """Units that were taken off."""
        return self._start - self.left

    def part(
        self, most: int = MAX_WORK, *, expired: Callable[[], bool] | None = None, inline: bool = False
    ) -> "Work":
        """Return a budget for one component. Its expense is to be taken off here afterwards.

        Args:
            most: units for it, if there are so many left.
            expired: its own clock, in place of that of the whole.
            inline: whether it stops with `Laborious` beyond `INLINE_WORK`.
        """
        left = max(self.left, 0)
        expired = self.expired if expired is None else expired
        if inline and min(left, most) > INLINE_WORK:
            part = Work(INLINE_WORK, expired, inline=True)
        elif left < most:
            part = Work(left, expired, inline=self._inline, whose=self._whose)
            part._limit, part._certain = self._limit, self._certain
        else:
            part = Work(most, expired)
            part._certain = True
        part._parent = self
        return part

    def _judge(self) -> None:
        if self.left < 0:
            if self._inline:
                raise Laborious("takes more work than others should wait for")
            message = f"takes more than {self._limit:,} units of work, the limit of {self._whose}"
            raise ExhaustedError(message, certain=self._certain)
        yield_now()
        if self.expired is not None and self.expired():
            raise ExhaustedError("takes longer than it may", certain=False)
        self._look = max(0, self.left - _BETWEEN_LOOKS)


class _NoWork(Work):
    __slots__ = ()

    def spend(self, units: int) -> None:  # noqa: ARG002 - as there
        raise Laborious("takes some work")

    def spend_shared(self, units: int) -> None:  # noqa: ARG002 - as there
        raise Laborious("takes some work")


NO_WORK: Final = _NoWork(0, inline=True)
"""A budget for nothing that has to be counted: all such work raises `Laborious`."""
