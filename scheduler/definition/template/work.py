"""How much rendering may cost: units of work, of a component and of a build, and a clock beside them.

A unit is the time in which about one byte of JSON is written in the worst kind of step: a million of them
take 25 ms of one processor at most, whatever a template does. Whoever loops over anything that came from
outside pays before each round, so that what is counted never lags far behind what was done.
"""

from collections.abc import Callable
from typing import Final

from scheduler.errors import TemplateError
from scheduler.runtime.breath import breathe

MAX_WORK = 8 * 1024 * 1024
"""Units for one component each time it is rendered: 0.2 s at the very worst."""
INLINE_WORK = 80_000
"""Units that may be spent where others wait meanwhile: 2 ms."""
_BUILD_WORK = 32 * 1024 * 1024
_WORK_PER_CHANGE = 8 * 1024
_BETWEEN_LOOKS = 20_000
"""Units between two looks at the clock, in which others have a turn where this runs beside them: 0.5 ms."""


def build_work(changes: int) -> int:
    """Units for all that is rendered of a build with so many changes: 0.8 s, and 0.2 ms for each of them."""
    return _BUILD_WORK + _WORK_PER_CHANGE * changes


def free(_: int, /) -> None:
    """Where nobody counts."""


class AbortedError(TemplateError):
    """The whole walk must end, whatever it was about to pass over: a circle, or too much work."""


class ExhaustedError(AbortedError):
    """There was more work to do than is allowed."""

    def __init__(self, message: str, *, certain: bool) -> None:
        self.certain = certain
        """Whether it would be so again, whenever it is tried: a limit, and not the time that is left."""
        super().__init__(message)


class Laborious(AbortedError):
    """There is more to do than others should wait for: to be done again, elsewhere, from the beginning."""


class Work:
    """How much may still be done.

    Args:
        left: units.
        expired: says whether there is no more time for it, asked every now and then (the core has no clock);
            None if there always is.
        inline: whether what is beyond is to be done again in a thread (`Laborious`), and not at all.
        whose: of what the limit is.
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
        """Whether something was found to be certain to take more than it may."""
        self._look = max(0, left - _BETWEEN_LOOKS) if expired is None else left

    @classmethod
    def of_build(cls, changes: int) -> "Work":
        """What all renderings of a build with so many changes may cost together."""
        work = cls(build_work(changes), whose="a build")
        work._certain = True
        return work

    def spend(self, units: int) -> None:
        """Take ``units`` off.

        Raises:
            ExhaustedError: there is not so much left, or no more time.
            Laborious: there is not so much left, of what may be spent inline.
        """
        self.left -= units
        if self.left < self._look:
            self._judge()

    def spend_shared(self, units: int) -> None:
        """Take ``units`` off for what is done once for the whole build: they are not this component's.

        Raises what `spend` raises.
        """
        if self._inline or self._parent is None:
            self.spend(units)
        else:
            self._parent.spend(units)
            self.spend(0)

    @property
    def inline(self) -> bool:
        """Whether others wait meanwhile."""
        return self._inline

    @property
    def spent(self) -> int:
        """Units that were taken off."""
        return self._start - self.left

    def part(
        self, most: int = MAX_WORK, *, expired: Callable[[], bool] | None = None, inline: bool = False
    ) -> "Work":
        """A meter for one component. What it has spent is to be taken off here afterwards.

        Args:
            most: units for it, if there are so many left.
            expired: its own, in the place of that of the whole.
            inline: whether it is to stop with `Laborious` beyond `INLINE_WORK`.
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
        breathe()
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
"""Where nothing may be done that has to be counted: all of it raises `Laborious`."""
