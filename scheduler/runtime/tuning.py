"""Tunes the interpreter for this program: many live objects, and some large messages."""

import ctypes
import gc
import sys

_GC_THRESHOLDS = (1_000, -1, 2_000_000_000)
"""Thresholds of the garbage collector. A large build is many live objects: walk them seldom, and few at once.

The first one counts objects made minus objects freed. A running build frees about as many objects as it
makes, so there are far more young ones when they are walked, and all else stands still for about 5 ms. With
-1 young objects are walked once and are then old; with 0 they are walked twice, and with more many times as
many are walked at once. All objects are walked only when `scheduler.runtime.collector` decides: finished
builds are freed without the collector.
"""
_SWITCH_INTERVAL = 0.0005
"""Seconds between thread switches: large builds are read in threads, and the loop must not wait 5 ms."""
_MMAP_THRESHOLD = 256 * 1024
"""Bytes from which glibc gives an allocation its own pages, and returns them."""
_M_MMAP_THRESHOLD = -3


def tune_interpreter() -> None:
    """Set thresholds of the garbage collector, of thread switches and of the allocator, for the process."""
    gc.set_threshold(*_GC_THRESHOLDS)
    sys.setswitchinterval(_SWITCH_INTERVAL)
    if sys.platform == "linux":
        # By default glibc raises this threshold to the largest message so far. Later messages then go to the
        # heap, where the smallest survivor above them keeps all of it. Only glibc has mallopt.
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD)
