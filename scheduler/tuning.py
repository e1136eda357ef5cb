"""How the interpreter is set up for what this program does: many live objects, and some large messages."""

import ctypes
import gc
import sys

_GC_THRESHOLDS = (50_000, 20, 50)
"""A large build is many live objects: with the default thresholds they are walked again and again. In
prototypes this took a component from 87 to 60 microseconds."""
_SWITCH_INTERVAL = 0.0005
"""Seconds. Large builds are read in threads; the loop must not wait 5 ms for its turn each time."""
_MMAP_THRESHOLD = 256 * 1024
"""Bytes from which glibc gives an allocation pages of its own, and gives them back."""
_M_MMAP_THRESHOLD = -3


def tune_interpreter() -> None:
    """Set thresholds of the garbage collector, of thread switches and of the allocator, for the process."""
    gc.set_threshold(*_GC_THRESHOLDS)
    sys.setswitchinterval(_SWITCH_INTERVAL)
    if sys.platform == "linux":
        # By itself glibc raises this threshold to the largest message it saw; what comes after that is put
        # into the heap, where the smallest survivor above it keeps all of it. Elsewhere there is no mallopt.
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD)
