"""Flags of simulated connectors, in the form of `scheduler.commands.flags`."""

from typing import TYPE_CHECKING, Annotated, TypeAlias

import attrs

from scheduler.commands.asking import option
from scheduler.commands.completers import build_files
from scheduler.commands.flags import Flags, flags, given, read
from scheduler.commands.parameters import SIMULATED
from scheduler.local.script import parse_script
from scheduler.local.simulator import Behaviour
from scheduler.setting import Section

if TYPE_CHECKING:
    from scheduler.definition.validation import Prepared


@flags((Behaviour, Section.SIMULATED))
class SimulatorFlags(Flags):
    """Behaviour of simulated connectors."""

    def behaviour(self) -> Behaviour:
        """Return these flags in the form of the simulator.

        Raises:
            InvalidSettings: an output does not have the required form.
        """
        return Behaviour(**{origin.attribute: read(value, origin.declared) for origin, value in given(self)})


BehaviourFile: TypeAlias = Annotated[
    str | None, option("File of times, failures and outputs by subject.", build_files, SIMULATED)
]
"""File with a script of simulated connectors."""


def scripted(behaviour: Behaviour, file: str | None) -> Behaviour | None:
    """Return the behaviour with a script from a file; if that has problems, print them and return None.

    Args:
        behaviour: what the flags say.
        file: name of the file; None for no script.
    """
    if file is None:
        return behaviour
    from scheduler.commands.sources import complain_of_problems, read_values  # noqa: PLC0415 - only here
    from scheduler.definition.limits import DEFAULT_LIMITS  # noqa: PLC0415

    found = read_values(file, DEFAULT_LIMITS)
    if found is None:
        return None
    script, problems = parse_script(found.values)
    if problems:
        located = [f"{file}:{found.lines.of(one.place)}: {one}" for one in problems]
        complain_of_problems(file, located)
        return None
    return attrs.evolve(behaviour, script=script)


def inventing(behaviour: Behaviour, prepared: "Prepared") -> Behaviour:
    """Return the behaviour that also invents what the references of a build ask for."""
    from scheduler.local.invention import invent  # noqa: PLC0415 - only with a build

    return attrs.evolve(behaviour, invention=invent(prepared, behaviour.outputs_for))


SIMULATOR_DEFAULTS = SimulatorFlags()
"""Flags when none is given."""
