#!/usr/bin/env bash
# cyclopts rounds what is given for an integer, to even where it is a half.
#
# Version:     cyclopts 5.4.0
# Expectation: a parameter of type int takes integers. "2.5" is refused, as argparse, click and typer do, and
#              more so for a number of connections or of retries, where the nearest one was not asked for.
# Behaviour:   text that int() does not take is read as a float and rounded, halves to the even neighbour: 2.5
#              is 2 and 3.5 is 4, 0.4 is 0. That goes through floats, so a large integer written with ".0"
#              loses its last digit. "1e3", which is one thousand exactly, is refused.
# Met by:      a command that takes a count, a port or a number of retries, where a configuration computed it.
# Seen on:     2026-11-30
# Output seen: --count 2.5                 2
#              --count 3.5                 4
#              --count 0.4                 0
#              --count 9007199254740993.0  9007199254740992
#              --count 1e3                 refused
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q cyclopts==5.4.0
cat > "$folder/find.py" <<'PYTHON'
import sys

import cyclopts

app = cyclopts.App(result_action="return_value")


@app.default
def main(*, count: int) -> int:
    return count


seen = {}
for text in ["2.5", "3.5", "0.4", "9007199254740993.0", "1e3"]:
    try:
        seen[text] = app(["--count", text], exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError:
        seen[text] = "refused"
    print(f"--count {text:19} {seen[text]}")
sys.exit(0 if list(seen.values()) == [2, 4, 0, 9007199254740992, "refused"] else 1)
PYTHON
"$folder/venv/bin/python" "$folder/find.py"
