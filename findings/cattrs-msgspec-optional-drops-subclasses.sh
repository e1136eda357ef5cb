#!/usr/bin/env bash
# cattrs' msgspec converter writes what a subclass adds, until its base class gets an optional field.
#
# Version:     cattrs 26.2.1, msgspec 0.23.0, attrs 26.1.0
# Expectation: what is written of an object in a list[Event] does not depend on a field that has nothing to do
#              with it: either all fields of the object's own class, or those of Event, which is what the json
#              converter writes.
# Behaviour:   a class whose fields msgspec can all write is handed to msgspec, which looks at the object and
#              writes all of it. One field that cattrs has to handle (an int | None, a set, a tuple of two, a
#              Path) brings the whole class back to cattrs, which goes by the annotation: what subclasses add
#              is left out from then on, without an error. A reader takes either.
# Met by:      a log of events, in which every kind has its own fields, when somebody adds "retries: int |
#              None = None" to the common base: all events that are written afterwards have lost their own
#              fields.
# Seen on:     2026-11-30
# Output seen: Event has:                  written of Created(name='vpc', size=5) in a list[Event]
#              name: str                   [{"name":"vpc","size":5}]
#              name: str, retries: int     [{"name":"vpc","retries":0,"size":5}]
#              name, retries: int | None   [{"name":"vpc","retries":0}]
#              the same, json converter    [{"name": "vpc", "retries": 0}]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q cattrs==26.2.1 msgspec==0.23.0 attrs==26.1.0
cat > "$folder/find.py" <<'PYTHON'
import json
import sys

import attrs
from cattrs.preconf import json as by_json
from cattrs.preconf import msgspec as by_msgspec


def written(extra: dict[str, object], by=by_msgspec) -> str:
    """Return what is written of an object whose base class has these fields too."""
    fields = {name: attrs.field(type=type_, default=0) for name, type_ in extra.items()}
    event = attrs.make_class("Event", {"name": attrs.field(type=str, default="vpc")} | fields)
    created = attrs.make_class("Created", {"size": attrs.field(type=int, default=5)}, bases=(event,))
    text = by.make_converter().dumps([created()], list[event])
    return text if isinstance(text, str) else text.decode()


seen = []
print(f"{'Event has:':27} written of Created(name='vpc', size=5) in a list[Event]")
for title, arguments in [
    ("name: str", ({},)),
    ("name: str, retries: int", ({"retries": int},)),
    ("name, retries: int | None", ({"retries": int | None},)),
    ("the same, json converter", ({"retries": int | None}, by_json)),
]:
    seen.append(written(*arguments))
    print(f"{title:27} {seen[-1]}")
keys = [set(json.loads(text)[0]) for text in seen]
expected = [{"name", "size"}, {"name", "size", "retries"}, {"name", "retries"}, {"name", "retries"}]
sys.exit(0 if keys == expected else 1)
PYTHON
"$folder/venv/bin/python" "$folder/find.py"
