"""Catalogue of the metrics: their names, types, labels and help texts.

A counter begins at 0 with each process. Names and labels are an interface: dashboards and alerts of operators
stand on them.
"""

from enum import Enum
from typing import Final, NamedTuple


class Sort(Enum):
    """Sort of a metric, as Prometheus knows it."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Metric(NamedTuple):
    """A metric."""

    name: str
    """Name as it is exported; that of a counter ends in ``_total``."""
    sort: Sort
    help: str
    """Help text, one line."""
    labels: tuple[str, ...] = ()


_KIND: Final = ("type", "action", "provider")

INFO: Final = Metric(
    "scheduler_info", Sort.GAUGE, "Always 1; version, name and store.", ("version", "name", "store")
)
READY: Final = Metric("scheduler_ready", Sort.GAUGE, "1 while /readyz answers 200.")
BUILDS: Final = Metric("scheduler_builds", Sort.GAUGE, "Builds that are here, by status.", ("status",))
BEGUN: Final = Metric(
    "scheduler_builds_begun_total",
    Sort.COUNTER,
    "Builds that began here: submitted, taken over, or retried after their end.",
    ("how",),
)
ENDED: Final = Metric(
    "scheduler_builds_ended_total",
    Sort.COUNTER,
    "Builds that ended here, by the status of their report; `left`: without one.",
    ("status",),
)
SUBMISSIONS: Final = Metric(
    "scheduler_submissions_total", Sort.COUNTER, "Builds that came in, accepted or refused.", ("result",)
)
COMPONENTS: Final = Metric(
    "scheduler_components_total", Sort.COUNTER, "Components by outcome.", (*_KIND, "outcome")
)
PHASES: Final = Metric(
    "scheduler_build_components", Sort.GAUGE, "Components of the builds that run, by state.", ("state",)
)
ATTEMPTS: Final = Metric(
    "scheduler_attempts_total", Sort.COUNTER, "Requests that were handed to the broker, as attempts.", _KIND
)
RETRIES: Final = Metric(
    "scheduler_retries_total", Sort.COUNTER, "Attempts that failed and are followed by another one.", _KIND
)
DURATIONS: Final = Metric(
    "scheduler_attempt_duration_seconds",
    Sort.HISTOGRAM,
    "Time from a request to its reply.",
    ("type", "provider"),
)
WAITS: Final = Metric(
    "scheduler_component_wait_seconds",
    Sort.HISTOGRAM,
    "Time from when a component was due until its request left.",
    ("type", "provider"),
)
IN_FLIGHT: Final = Metric("scheduler_requests_in_flight", Sort.GAUGE, "Requests that have their slots.")
BYTES_IN_FLIGHT: Final = Metric("scheduler_bytes_in_flight", Sort.GAUGE, "Bytes of these requests.")
QUEUE: Final = Metric("scheduler_queue_length", Sort.GAUGE, "Components that wait for slots.")
LIMIT_QUEUE: Final = Metric(
    "scheduler_limit_queue_length", Sort.GAUGE, "Components that wait and fall under a limit.", ("limit",)
)
LIMIT_USED: Final = Metric(
    "scheduler_limit_used",
    Sort.GAUGE,
    "Units of a limit in use: in flight, or begun within its period.",
    ("limit",),
)
LIMIT_SIZE: Final = Metric(
    "scheduler_limit_size", Sort.GAUGE, "Units of a limit that this instance has.", ("limit",)
)
COMMITS: Final = Metric(
    "scheduler_commit_duration_seconds", Sort.HISTOGRAM, "Time from a record to its confirmation."
)
COMMIT_SIZES: Final = Metric("scheduler_commit_size_bytes", Sort.HISTOGRAM, "Sizes of records.")
COMMIT_RETRIES: Final = Metric(
    "scheduler_commit_retries_total", Sort.COUNTER, "Attempts to store a record that had to be repeated."
)
COMMIT_CONFLICTS: Final = Metric(
    "scheduler_commit_conflicts_total",
    Sort.COUNTER,
    "Records that were refused, because another process had written to the log.",
)
STORE_UP: Final = Metric("scheduler_store_up", Sort.GAUGE, "1 while commits go through.")
REPLIES_DROPPED: Final = Metric(
    "scheduler_replies_dropped_total",
    Sort.COUNTER,
    "Replies that changed nothing, and attempts without any reply.",
    ("reason",),
)
CONNECTION_UP: Final = Metric(
    "scheduler_connection_up", Sort.GAUGE, "1 while a connection to the broker is up.", ("connection",)
)
CONNECTIONS: Final = Metric(
    "scheduler_connections_total", Sort.COUNTER, "Connections that were established.", ("connection",)
)
TURNS: Final = Metric(
    "scheduler_loop_turn_seconds",
    Sort.HISTOGRAM,
    "Turns of the event loop: times without a look at input and output.",
)
LONGEST_TURN: Final = Metric(
    "scheduler_loop_longest_turn_seconds", Sort.GAUGE, "Longest turn of the last minute or two."
)
LAG: Final = Metric("scheduler_loop_lag_seconds", Sort.GAUGE, "Delay of a task that slept, the last time.")
INSTANCES: Final = Metric(
    "scheduler_instances",
    Sort.GAUGE,
    "Instances of the fleet as this one sees them, by standing.",
    ("standing",),
)
LEASE_AGE: Final = Metric(
    "scheduler_lease_age_seconds", Sort.GAUGE, "Time since the lease of this instance was renewed."
)
LAPSES: Final = Metric(
    "scheduler_lease_lapses_total", Sort.COUNTER, "Times that the lease was not renewed in time."
)

METRICS: Final = (
    INFO,
    READY,
    BUILDS,
    BEGUN,
    ENDED,
    SUBMISSIONS,
    COMPONENTS,
    PHASES,
    ATTEMPTS,
    RETRIES,
    DURATIONS,
    WAITS,
    IN_FLIGHT,
    BYTES_IN_FLIGHT,
    QUEUE,
    LIMIT_SIZE,
    LIMIT_USED,
    LIMIT_QUEUE,
    COMMITS,
    COMMIT_SIZES,
    COMMIT_RETRIES,
    COMMIT_CONFLICTS,
    STORE_UP,
    REPLIES_DROPPED,
    CONNECTION_UP,
    CONNECTIONS,
    TURNS,
    LONGEST_TURN,
    LAG,
    INSTANCES,
    LEASE_AGE,
    LAPSES,
)
"""All of them, in the order in which they are exported."""
PROCESS: Final = (
    "process_virtual_memory_bytes",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_max_fds",
)
"""Names of what the library for metrics says of the process."""
