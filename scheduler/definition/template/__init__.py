"""References in a component's fields (WIRE: "References"): compiled at intake, rendered just before sending.

`component` is where to begin reading; below it stand the two forms (`paths`; `expressions`, over `grammar`
and `sandbox`) and what both look things up in (`resolve`). What all that may cost stands in `work`.
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
