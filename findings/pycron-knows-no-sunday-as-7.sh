#!/usr/bin/env bash
# pycron: Sunday written as 7 never comes, nor does a month written as a name.
#
# Version:     pycron 3.3.0, by which taskiq 0.13.0 decides whether a task is due
# Expectation: crontab's own rules: 7 is Sunday as 0 is, and months have names as days do. An expression that
#              is not understood is an error, when it is first looked at.
# Behaviour:   0, SUN and Sunday are Sunday; 7 is compared as a number and equals no day, so "5-7" ends on
#              Saturday. MON is understood and JAN is not. What is not understood matches nothing, and that is
#              all: no error and no warning, with "0 3 * * 7" as with any slip of the pen.
# Met by:      a weekly job whose line was taken from a crontab: it is never run, and nothing says so.
# Seen on:     2026-11-30
# Output seen: 0 3 * * 0    Sun
#              0 3 * * SUN  Sun
#              0 3 * * 7    never
#              0 3 * * 5-7  Fri Sat
#              0 3 * 1 *    Mon Tue Wed Thu Fri Sat Sun
#              0 3 * JAN *  never
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pycron==3.3.0
cat > "$folder/find.py" <<'PYTHON'
import sys
from datetime import datetime, timedelta

import pycron

EVERY = "Mon Tue Wed Thu Fri Sat Sun"


def days(line: str) -> str:
    """Return the days of a week in January on which a job is due at three o'clock."""
    monday = datetime(2026, 1, 5, 3, 0)
    week = [monday + timedelta(days=n) for n in range(7)]
    due = [pycron.is_now(line, moment) for moment in week]
    return " ".join(name for name, is_due in zip(EVERY.split(), due) if is_due) or "never"


expected = {
    "0 3 * * 0": "Sun",
    "0 3 * * SUN": "Sun",
    "0 3 * * 7": "never",
    "0 3 * * 5-7": "Fri Sat",
    "0 3 * 1 *": EVERY,
    "0 3 * JAN *": "never",
}
seen = {line: days(line) for line in expected}
for line, text in seen.items():
    print(f"{line:12} {text}")
sys.exit(0 if seen == expected else 1)
PYTHON
"$folder/venv/bin/python" "$folder/find.py"
