"""The state machine of one build: what may start, what a reply changes, how it ends.

The plan is the only place that decides. It is synchronous: between reading and changing it nothing else
runs, so it needs no lock. It knows neither time nor network; whoever drives it (`scheduler.walk`) asks,
acts, and says what happened.

A component that fails is data. What raises here is a bug of the driver (`errors.PlanError`).

`plan` decides on events and `steering` what an operator does; `state` is what they change, and nothing else
changes it. `requests` renders, `phases` says where each component may go, `attempts` how often it is tried,
`ledger` what exists.
"""

from scheduler.plan.phases import Phase
from scheduler.plan.plan import Plan
from scheduler.plan.requests import Rendering, Request

__all__ = ["Phase", "Plan", "Rendering", "Request"]
