"""Names that are nearly a known one: a typing mistake, another spelling, singular and plural."""

from collections.abc import Iterable
from typing import Final

_LONG: Final = 9
"""Letters from which a name may differ in two of them; a shorter one in one, and below four in none."""
_SHORT: Final = 4


def nearly(name: str, ours: Iterable[str]) -> str | None:
    """Return the one of ``ours`` that ``name`` was probably meant to be; None if it is one, or like none.

    Capitals, hyphens, underscores and a plural ending make no difference: ``_retries`` is ``_retry``,
    ``on-error`` is ``on_error``. Otherwise a letter or two may be wrong, missing, too many or swapped.
    """
    ours = list(ours)
    if name in ours:
        return None
    plain = _plain(name)
    allowed = 2 if len(plain) >= _LONG else 1 if len(plain) >= _SHORT else 0
    best: str | None = None
    for one in ours:
        other = _plain(one)
        if abs(len(other) - len(plain)) <= allowed and _letters_apart(plain, other) <= allowed:
            mistakes = _mistakes(plain, other)
            if mistakes <= allowed:
                best, allowed = one, mistakes - 1
    return best


def _plain(name: str) -> str:
    name = name.casefold().replace("_", "").replace("-", "")
    return f"{name[:-3]}y" if name.endswith("ies") else name.removesuffix("s")


def _letters_apart(first: str, second: str) -> int:
    """Return how many letters only one of two names has: there are no fewer mistakes. It is quickly known."""
    ours, others = set(first), set(second)
    return max(len(ours - others), len(others - ours))


def _mistakes(first: str, second: str) -> int:
    """Return the letters to change, add, remove or swap with the next (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(second) + 1))
    for at, letter in enumerate(first, 1):
        earlier, before, row = before, row, [at]
        for other_at, other in enumerate(second, 1):
            cost = min(before[other_at] + 1, row[-1] + 1, before[other_at - 1] + (letter != other))
            if at > 1 and other_at > 1 and letter == second[other_at - 2] and first[at - 2] == other:
                cost = min(cost, earlier[other_at - 2] + 1)
            row.append(cost)
    return row[-1]
