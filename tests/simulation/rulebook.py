"""Rules of builds and operators for running components, as the checker reads them."""

from scheduler.definition.patterns import matches
from scheduler.definition.rules import (
    LimitRule,
    Policy,
    Retry,
    parse_limits,
    parse_retries,
    read_limits,
    read_retry,
)
from simulation.operating import JSON
from simulation.scenario import Scenario


class Rulebook:
    """The rules of one scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.attempt_timeout = scenario.attempt_timeout
        self.limits: tuple[LimitRule, ...] = parse_limits(scenario.operating.rules)
        """Of every process."""
        self._retries = parse_retries(scenario.operating.retries)

    def retry(self, build: JSON, change: JSON) -> Retry:
        """Return the number of attempts of a component: by itself, its build, or the operator."""
        if "_retry" in change:
            return read_retry(change["_retry"])
        if "retry" in build.get("options", {}):
            return read_retry(build["options"]["retry"])
        subject = f"{change['_component']}.{change['_action']}.{change['_provider']}"
        return next((rule for pattern, rule in self._retries if matches(pattern, subject)), Retry())

    def most_failures(self, build: JSON) -> float:
        """Return the failed components with which a build continues."""
        policy, problems = Policy.of(build.get("options"), len(build["changes"]))
        assert not problems, problems
        return policy.most_failures

    def own_limits(self, build: JSON) -> tuple[LimitRule, ...]:
        """The limits that a build has of its own when it begins."""
        return read_limits(build.get("options", {}).get("limits", {}))

    def shortest(self, build: JSON, change: JSON) -> float:
        """Seconds that an attempt has at least."""
        if self.retry(build, change).total is not None:
            return 0.0
        return float(change.get("_timeout", self.attempt_timeout))
