"""The limits that keep requests waiting, as people know them."""

from collections.abc import Hashable

from scheduler.limiter.usage import Usages


def blocking(usages: Usages, build: Hashable, subject: str, now: float) -> list[str]:
    """Return the limits that would keep a request on ``subject`` of this build waiting now."""
    usage = usages.make(build)
    limits = usages.priority_queue(usage, subject).limits
    found = [limit.label for limit in limits if not limit.room(now)]
    if usage.account.short is not None:
        found.append(usages.budget.label)
    usages.drop_if_empty(usage)
    return found


def waiting(usages: Usages, build: Hashable, now: float) -> dict[str, int]:
    """Return, by limit, how many components of this build wait and are kept by it."""
    found: dict[str, int] = {}
    usage = usages.get(build)
    for build_queue in usage.waiting if usage is not None else ():
        for priority_queue in build_queue.priority_queues:
            labels = [limit.label for limit in priority_queue.limits if not limit.room(now)]
            if build_queue.account.short is not None:
                labels.append(usages.budget.label)
            for label in labels:
                found[label] = found.get(label, 0) + priority_queue.length
    return found
