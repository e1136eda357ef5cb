"""Values made for each component, which only the type checker treats as frozen.

At run time they are not: attrs sets a field of a frozen object in a way that takes four times as long.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attrs import frozen as value
else:
    from functools import partial

    from attrs import define

    value = partial(define, unsafe_hash=True)

__all__ = ["value"]
