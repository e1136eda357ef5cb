"""Variables of the environment: ours, and what is nearly one of them."""

import pytest

from scheduler.cli import build_app
from scheduler.commands.catalogue import NAMES as COMMANDS
from scheduler.commands.variables import misspelt_variables, our_variables


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SCHEDULER_STOR", "SCHEDULER_STORE"),
        ("SCHEDULER_MAX_INFLIGHT", "SCHEDULER_MAX_IN_FLIGHT"),
        ("SCHEDULER_LIMIT", "SCHEDULER_LIMITS"),
        ("SCHEDULER_TIMEOUT", "SCHEDULER_TIMEOUTS"),
        ("SCHEDULER_ATTEMPT_TIMEOUTS", "SCHEDULER_ATTEMPT_TIMEOUT"),
        ("SCHEDULER_NATS_URL", "NATS_URL"),
        ("SCHEDULER_NATS_URI", "NATS_URI"),
        ("SCHEDULER_CONTEXT", "NATS_CONTEXT"),
        ("SCHEDULER_NATS_CONTEXT", "NATS_CONTEXT"),
    ],
)
def test_variables_that_are_nearly_ours_are_told(name: str, meant: str) -> None:
    """The message names the variable and the one that was meant."""
    assert misspelt_variables([name, "HOME"]) == [f"{name} is none of our variables; did you mean {meant}?"]


def test_variables_of_others_are_left_alone() -> None:
    """What Kubernetes sets for services, what is like none of ours, and ours themselves are not told."""
    kubernetes = [
        *(
            "SCHEDULER_PORT",
            "SCHEDULER_SERVICE_HOST",
            "SCHEDULER_SERVICE_PORT",
            "SCHEDULER_SERVICE_PORT_NATS",
        ),
        *("SCHEDULER_PORT_4222_TCP", "SCHEDULER_PORT_4222_TCP_ADDR", "SCHEDULER_PORT_4222_TCP_PROTO"),
        *("SCHEDULER_LIMIT_SERVICE_HOST", "SCHEDULER_STOR_PORT", "SCHEDULER_KEEP_PORT_80_TCP_PORT"),
    ]
    others = ["SCHEDULER_", "SCHEDULER_HOME", "SCHEDULER_IMAGE_TAG", "STOR", "XSCHEDULER_STOR"]
    assert misspelt_variables([*kubernetes, *others, *our_variables()]) == []


def test_every_variable_of_a_command_is_known() -> None:
    """Each flag that has a variable has one of those that are ours."""
    app = build_app()
    heard = {
        variable
        for command in COMMANDS
        for argument in app[command].assemble_argument_collection()
        for variable in argument.parameter.env_var or ()
    }
    assert heard == our_variables()
