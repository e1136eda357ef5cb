"""How the interpreter is set up for what this program does: many live objects, and some large messages."""

import ctypes
import gc
import sys

_GC_THRESHOLDS = (1_000, -1, 2_000_000_000)
"""A large build is many live objects: they are to be walked seldom, and few at a time.

The first counts objects made less objects freed. While a build runs it frees about as many as it makes: there
are far more young ones than that when they are walked, and all else stands still for 5 ms or so. With -1 they
are walked once and are old then; with 0 twice, and with more over many times as many at once. All are walked
only when `scheduler.runtime.collector` says so: what builds leave behind is freed without the collector.
"""
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
