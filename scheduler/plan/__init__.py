"""The state machine of one build: what may start, what a reply changes, how it ends.

The plan is the only place that decides. It is synchronous: between reading and changing it nothing else
runs, so it needs no lock. It knows neither time nor network; whoever drives it (`scheduler.build`) asks,
acts, and says what happened.

A component that fails is data. What raises here is a bug of the driver (`errors.PlanError`).

`course` is the run of a build by itself, `steering` what an operator does to it, `replay` the way back to
where it stood; `phases` says where each component may go, `attempts` how often it is tried.
"""

from scheduler.plan.course import Rendering, Request
from scheduler.plan.phases import Phase
from scheduler.plan.replay import Plan

__all__ = ["Phase", "Plan", "Rendering", "Request"]
