"""The state machine of one build: what may start, what a reply changes, how it ends.

The plan is the only place that decides. It is synchronous: nothing else runs between reading and changing
it, so it needs no lock. It knows neither time nor network: its driver (`scheduler.walk`) asks for a decision,
acts on it, and reports what happened.

A component that fails is data. An exception here is a bug of the driver (`errors.PlanError`).

`plan` decides on events, `steering` on the commands of operators, and `gates` on approvals. `state` holds
what the events change, and is their only writer. `requests` renders requests, `phases` holds the table of
legal transitions, `attempts` counts attempts, and `ledger` keeps the components that exist.
"""

from scheduler.plan.phases import Phase
from scheduler.plan.plan import Plan
from scheduler.plan.request import Request
from scheduler.plan.requests import Rendering

__all__ = ["Phase", "Plan", "Rendering", "Request"]
