#!/usr/bin/env bash
# python-hcl2 reads a number with an exponent as an interpolated string.
#
# Version:     python-hcl2 8.1.4
# Expectation: 1e3 is a number literal of HCL (NumericLit of its specification has an exponent part), so it
#              comes out as a number, as 1000 and 1000.0 do.
# Behaviour:   it comes out as the text "${1e3}", which is what expressions come out as that only Terraform
#              can evaluate. A reader of timeouts or sizes that compares numbers meets text; one that looks
#              for "${" to find references finds one that refers to nothing.
# Met by:      a reader of Terraform's variables that compares limits or durations as numbers.
# Seen on:     2026-11-30
# Output seen: 1000      1000        int
#              1000.0    1000.0      float
#              1e3       '${1e3}'    str
#              2.5E-3    '${2.5E-3}' str
#              [1e3, 2]  ['${1e3}', 2] list
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q python-hcl2==8.1.4
cat > "$folder/find.py" <<'PYTHON'
import sys

import hcl2

seen = {}
for text in ["1000", "1000.0", "1e3", "2.5E-3", "[1e3, 2]"]:
    value = seen[text] = hcl2.loads(f"size = {text}\n")["size"]
    print(f"{text:9} {value!r:11} {type(value).__name__}")
sys.exit(0 if list(seen.values()) == [1000, 1000.0, "${1e3}", "${2.5E-3}", ["${1e3}", 2]] else 1)
PYTHON
"$folder/venv/bin/python" "$folder/find.py"
