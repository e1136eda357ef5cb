"""Values that are made for each component: the type checker holds them for frozen.

At run time nothing does: attrs sets a field of a frozen object by a detour, which takes four times as long.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attrs import frozen as value
else:
    from functools import partial

    from attrs import define

    value = partial(define, unsafe_hash=True)

__all__ = ["value"]
