"""References in a component's fields (WIRE: "References"): compiled at intake, rendered just before sending.

`component` is where to begin reading; below it stand the two forms (`paths`; `expressions`, over `grammar`
and `sandbox`) and what both look things up in (`resolve`).
"""

from scheduler.errors import InvalidTemplate
from scheduler.template.component import (
    OnUnresolved,
    Reference,
    Rendered,
    Template,
    Templates,
    compile_change,
)
from scheduler.template.resolve import Found, Scope, Work

__all__ = [
    "Found",
    "InvalidTemplate",
    "OnUnresolved",
    "Reference",
    "Rendered",
    "Scope",
    "Template",
    "Templates",
    "Work",
    "compile_change",
]
