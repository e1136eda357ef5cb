"""Texts about a build for people: without secrets, and cut."""

from collections.abc import Hashable

from scheduler.definition.secrets.masking import Secrets
from scheduler.plan.state import PlanState

_MOST_SHOWN = 4_000
"""Characters of a build's error that people see; the report has the whole error."""


class Texts:
    """Masks the secrets of one build.

    Args:
        secrets: those that are known so far.
        state: how the build stands.
    """

    __slots__ = ("_secrets", "_shown_cause", "_state")

    def __init__(self, secrets: Secrets, state: PlanState) -> None:
        self._secrets = secrets
        self._state = state
        self._shown_cause: tuple[str, Hashable, str] | None = None
        """The cause, the secrets known when it was masked, and the masked cause."""

    def masked(self, text: str, most: int = 0) -> str:
        """Return a text with secrets masked, and cut to ``most`` characters if that is not 0.

        Masking a few thousand characters takes some milliseconds; a whole long text takes 25.
        """
        return self._secrets.mask(text, most)

    @property
    def known(self) -> Hashable:
        """State of what `masked` knows; once it has changed, a text may be masked differently."""
        return self._secrets.known

    @property
    def cause(self) -> str | None:
        """Error of the build with secrets masked; only the beginning of a long one. None without an error."""
        cause = self._state.cause
        if cause is None:
            return None
        known = self.known
        if self._shown_cause is None or self._shown_cause[:2] != (cause, known):
            # It may be long, and every watcher asks for it every two seconds.
            self._shown_cause = cause, known, self.masked(cause, _MOST_SHOWN)
        return self._shown_cause[2]
