"""Finds misspelt environment variables: nearly one of ours, they would be ignored silently."""

import re
from collections.abc import Iterable
from typing import Final

import attrs

from scheduler.commands.flags import BrokerFlags
from scheduler.commands.groups import GROUPS
from scheduler.definition.nearly import nearly
from scheduler.setting import variables_of

_PREFIX: Final = "SCHEDULER_"
_KUBERNETES: Final = re.compile(r"SCHEDULER_(?:[A-Z0-9_]+_)?(?:PORT(?:_.*)?|SERVICE_(?:HOST|PORT(?:_.*)?))")
"""Variables that Kubernetes sets for each service whose name begins with ours."""
_OF_COMMANDS: Final = ("action", "json", "simulate", "connectors", "durations", "example", "components")
"""Flags of single commands."""


def our_variables() -> frozenset[str]:
    """Return every variable that a command reads."""
    names = [field.name for group in GROUPS for field in attrs.fields(group)]
    return frozenset(variable for name in (*names, *_OF_COMMANDS) for variable in variables_of(name))


def misspelt_variables(environment: Iterable[str]) -> list[str]:
    """Return a warning for each variable that is nearly one of ours; values are not read.

    Args:
        environment: the names of all variables.
    """
    ours = our_variables()
    words = {name.removeprefix(_PREFIX): name for name in ours}
    # Those that others named are spelled with our prefix, too.
    words |= {field.name.upper(): variables_of(field.name)[0] for field in attrs.fields(BrokerFlags)}
    found = []
    for name in sorted(environment):
        if not name.startswith(_PREFIX) or name in ours or _KUBERNETES.fullmatch(name):
            continue
        word = name.removeprefix(_PREFIX)
        meant = word if word in words else nearly(word, words)
        if meant is not None:
            found.append(f"{name} is none of our variables; did you mean {words[meant]}?")
    return found
