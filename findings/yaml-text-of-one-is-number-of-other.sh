#!/usr/bin/env bash
# PyYAML and ruamel.yaml: each writes text without quotes that the other reads as a number or a truth value.
#
# Version:     PyYAML 6.0.4, ruamel.yaml 0.19.1
# Expectation: both quote a text that would be read as something else, as both do for "017" and "null". What
#              one's safe writer has written is the same for the other's safe reader.
# Behaviour:   each quotes what it would misread itself. PyYAML resolves by YAML 1.1, where an account number
#              with a leading zero and an 8 or 9 is no octal number, and 12e5 needs a dot and a sign to be
#              one: written bare, and a number in YAML 1.2. ruamel.yaml writes by 1.2, where "on" and 22:22
#              are text: written bare, and a truth value and a number to the base of 60 in 1.1. Nothing marks
#              the file as either.
# Met by:      a file that passes between two tools: the account 089012345678 loses its zero, the revision
#              12e5 is 1200000.0, the port mapping 22:22 is 1342. One account in many, so a test with others
#              passes.
# Seen on:     2026-11-30
# Output seen: PyYAML writes       ruamel.yaml reads
#              k: 089012345678     89012345678
#              k: 12e5             1200000.0
#              k: '017'            '017'
#              ruamel.yaml writes  PyYAML reads
#              k: on               True
#              k: 22:22            1342
#              k: '017'            '017'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pyyaml==6.0.4 ruamel.yaml==0.19.1
cat > "$folder/find.py" <<'PYTHON'
import io
import sys

import yaml
from ruamel.yaml import YAML


def ruamel_text(value: object) -> str:
    stream = io.StringIO()
    YAML(typ="rt").dump(value, stream)
    return stream.getvalue()


def ruamel_value(text: str) -> dict:
    return YAML(typ="safe", pure=True).load(text)


seen = []
for title, write, read, texts in [
    ("PyYAML writes       ruamel.yaml reads", yaml.safe_dump, ruamel_value, ["089012345678", "12e5", "017"]),
    ("ruamel.yaml writes  PyYAML reads", ruamel_text, yaml.safe_load, ["on", "22:22", "017"]),
]:
    print(title)
    for text in texts:
        written = write({"k": text})
        seen.append(read(written)["k"])
        print(f"{written.strip():19} {seen[-1]!r}")
sys.exit(0 if seen == [89012345678, 1200000.0, "017", True, 1342, "017"] else 1)
PYTHON
"$folder/venv/bin/python" "$folder/find.py"
