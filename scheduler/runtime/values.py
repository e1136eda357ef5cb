"""Values made for each component: frozen, and made in a quarter of the time of an object of attrs."""

from typing import Any, ClassVar

import msgspec

__all__ = ["Value"]


class Value(msgspec.Struct, frozen=True, eq=False):
    """Base of such values; they are compared and shown by their fields, as values of attrs are."""

    UNSHOWN: ClassVar[frozenset[str]] = frozenset()
    """Fields that ``repr`` leaves out: they are long, or may have secrets in them."""
    UNCOMPARED: ClassVar[frozenset[str]] = frozenset()
    """Fields that may differ between values which are equal."""

    def __repr__(self) -> str:
        """Return the value as it is made, without what is not shown."""
        names = (name for name in self.__struct_fields__ if name not in self.UNSHOWN)
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    def __eq__(self, other: object) -> bool:
        """Whether the other is of the same class, with equal fields."""
        if type(other) is not type(self):
            return NotImplemented
        return self._compared() == other._compared()

    def __ne__(self, other: object) -> bool:
        """Whether it is not equal; msgspec's own would compare identities."""
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    def __hash__(self) -> int:
        """Return a hash; equal for equal values."""
        return hash(self._compared())

    def _compared(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__struct_fields__ if name not in self.UNCOMPARED)
