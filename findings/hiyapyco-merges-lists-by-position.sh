#!/usr/bin/env bash
# HiYaPyCo: a merge of two lists of mappings lays the first entry over the first, whatever they are.
#
# Version:     HiYaPyCo 0.7.0
# Expectation: METHOD_MERGE, "a deep merge", joins lists: what the second file lists is added to what the
#              first one has, as it is with lists of numbers. "Try to merge lists of dict" (mergelists, on
#              unless it is switched off) finds the entries that belong together, or joins as well where it
#              cannot tell.
# Behaviour:   lists of mappings are merged by position. The first entry of the second file changes the first
#              entry of the first file, key by key, and keeps the keys that it does not name itself. Nothing
#              looks at names or ids. The entry that stood there is gone, and the new one has its values.
# Met by:      an overlay for one environment that adds a rule, a volume or a host to a list of the base file.
# Seen on:     2026-11-30
# Output seen: numbers:           [22, 80] + [5432] = [22, 80, 5432]
#              mappings:          [{name: ssh, port: 22}, {name: web, port: 80}] + [{name: db, tls: true}]
#                                 = [{name: db, port: 22, tls: true}, {name: web, port: 80}]
#              mergelists=False:  [{name: ssh, port: 22}, {name: web, port: 80}, {name: db, tls: true}]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q hiyapyco==0.7.0
cat > "$folder/find.py" <<'PYTHON'
import sys

import hiyapyco


def merged(base: str, overlay: str, **options: bool) -> list:
    texts = [f"rules: {base}\n", f"rules: {overlay}\n"]
    return hiyapyco.load(texts, method=hiyapyco.METHOD_MERGE, **options)["rules"]


def text(rules: list) -> str:
    """Return the value as YAML in one line."""
    return hiyapyco.dump(rules, default_flow_style=True, width=200).strip()


base, overlay = "[{name: ssh, port: 22}, {name: web, port: 80}]", "[{name: db, tls: true}]"
numbers = merged("[22, 80]", "[5432]")
mappings = merged(base, overlay)
joined = merged(base, overlay, mergelists=False)
print("numbers:           [22, 80] + [5432] =", numbers)
print(f"mappings:          {base} + {overlay}\n{'':18} = {text(mappings)}")
print("mergelists=False: ", text(joined))
ssh, web, db = {"name": "ssh", "port": 22}, {"name": "web", "port": 80}, {"name": "db", "tls": True}
by_position = numbers == [22, 80, 5432] and mappings == [{**ssh, **db}, web] and joined == [ssh, web, db]
sys.exit(0 if by_position else 1)
PYTHON
"$folder/venv/bin/python" "$folder/find.py"
