"""Decides which requests may begin: limits by subject, per build and for the instance, shared fairly."""

from scheduler.limiter.explaining import blocking, waiting
from scheduler.limiter.limiter import MAX_BYTES, Limiter
from scheduler.limiter.limits import FlightLimit, Limit, RateLimit, cap_text, stretched
from scheduler.limiter.parts import Part, Use, adopt, allot, counting, note_of, standing, use_of, wanting
from scheduler.limiter.queues import PriorityQueue, Waiter, WaiterState
from scheduler.limiter.shares import may_have_one_more

__all__ = [
    "MAX_BYTES",
    "FlightLimit",
    "Limit",
    "Limiter",
    "Part",
    "PriorityQueue",
    "RateLimit",
    "Use",
    "Waiter",
    "WaiterState",
    "adopt",
    "allot",
    "blocking",
    "cap_text",
    "counting",
    "may_have_one_more",
    "note_of",
    "standing",
    "stretched",
    "use_of",
    "waiting",
    "wanting",
]
