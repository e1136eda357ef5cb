"""The flags of simulated connectors; as `scheduler.commands.flags`."""

from typing import Annotated, Final, Literal

import attrs
from cyclopts import Parameter

from scheduler.commands.parameters import SIMULATED, choice, number, text
from scheduler.config import Range, invalid
from scheduler.local.simulator import Behaviour, ReplyTo, parse_output

_BEHAVIOUR: Final = Behaviour()


@Parameter(name="*")
@attrs.frozen
class SimulatorFlags:
    """How simulated connectors behave."""

    latency: Annotated[
        float,
        number(
            "latency", "How long a connector takes to answer.", SIMULATED, Range(0.0, 3_600.0, duration=True)
        ),
    ] = _BEHAVIOUR.latency
    jitter: Annotated[
        float,
        number(
            "jitter", "How much that time varies, either way.", SIMULATED, Range(0.0, 3_600.0, duration=True)
        ),
    ] = _BEHAVIOUR.jitter
    failure_rate: Annotated[
        float, number("failure_rate", "Share of requests that fail, from 0 to 1.", SIMULATED, Range(0.0, 1.0))
    ] = _BEHAVIOUR.failure_rate
    seed: Annotated[
        int, number("seed", "Seed of the random failures and times.", SIMULATED, Range(0, 2**63))
    ] = _BEHAVIOUR.seed
    reply_to: Annotated[
        Literal["subject", "inbox", "both"],
        choice("reply_to", ReplyTo, "Answer on <subject>.done, on the reply subject, or on both.", SIMULATED),
    ] = _BEHAVIOUR.reply_to
    outputs: Annotated[
        tuple[str, ...],
        text(
            "outputs",
            "Field to set in answers: 'instance.create.*:public_ip=1.2.3.4'; repeatable.",
            SIMULATED,
        ),
    ] = ()

    def behaviour(self) -> Behaviour:
        """These flags as the simulator takes them.

        Raises:
            InvalidSettings: an output is not of the form that it must have.
        """
        outputs = []
        for output in self.outputs:
            try:
                outputs.append(parse_output(output))
            except ValueError:
                allowed = (
                    "is not of the form PATTERN:FIELD=VALUE, such as instance.create.*:public_ip=1.2.3.4"
                )
                raise invalid("outputs", output, allowed) from None
        return Behaviour(
            latency=self.latency,
            jitter=self.jitter,
            failure_rate=self.failure_rate,
            seed=self.seed,
            reply_to=self.reply_to,
            outputs=tuple(outputs),
        )


SIMULATOR_DEFAULTS = SimulatorFlags()
"""The flags where none is given."""
