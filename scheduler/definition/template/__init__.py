"""References in a component's fields (WIRE: "References"): compiled at intake, rendered just before sending.

Begin reading with `component`. Below it are the two forms (`paths`; `expressions`, with `grammar` and
`sandbox`), and the look-ups of both (`resolve`). Costs are in `work`.
"""

from scheduler.definition.choices import OnUnresolved, Templates
from scheduler.definition.template.component import Reference, Rendered, Template, compile_change
from scheduler.definition.template.scopes import UNLIMITED, Found, Scope, Shared
from scheduler.definition.template.work import INLINE_WORK, MAX_WORK, ExhaustedError, Laborious, Work
from scheduler.errors import InvalidTemplate

__all__ = [
    "INLINE_WORK",
    "MAX_WORK",
    "UNLIMITED",
    "ExhaustedError",
    "Found",
    "InvalidTemplate",
    "Laborious",
    "OnUnresolved",
    "Reference",
    "Rendered",
    "Scope",
    "Shared",
    "Template",
    "Templates",
    "Work",
    "compile_change",
]
