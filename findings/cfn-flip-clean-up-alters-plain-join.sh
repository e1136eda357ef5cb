#!/usr/bin/env bash
# cfn-flip: clean_up turns ${X} in a Join of texts into ${!X}, in a text that nothing reads as such.
#
# Version:     cfn-flip 1.3.0
# Expectation: clean_up (-c) writes Fn::Join as Fn::Sub. There a literal "${X}" has to be escaped as "${!X}",
#              which CloudFormation takes back; where all parts are texts no Sub is needed, and the result is
#              the text that Join would give.
# Behaviour:   the parts are escaped before it is known whether there will be a Sub. A Join of texts alone
#              becomes a plain text with the escapes in it, which nothing takes back. It is valid YAML, and a
#              valid template.
# Met by:      user data as a Join of lines, the way JSON templates hold scripts: "${HOME}" reaches the
#              machine as "${!HOME}", which a shell reads as another expansion. Scripts that have a Ref in
#              them are right.
# Seen on:     2026-11-30
# Output seen: with a Ref:   {'Fn::Sub': 'cd ${!HOME}\n${Command}'}
#              texts alone:  'cd ${!HOME}\nls'
#              no clean_up:  {'Fn::Join': ['\n', ['cd ${HOME}', 'ls']]}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q cfn-flip==1.3.0
cat > "$folder/find.py" <<'PYTHON'
import json
import sys

import cfn_flip


def flipped(parts: list, *, clean_up: bool) -> object:
    """Return what a Join of parts, as JSON, is after the way to YAML and back."""
    template = json.dumps({"UserData": {"Fn::Join": ["\n", parts]}})
    return json.loads(cfn_flip.to_json(cfn_flip.to_yaml(template, clean_up=clean_up)))["UserData"]


seen = {
    "with a Ref:": flipped(["cd ${HOME}", {"Ref": "Command"}], clean_up=True),
    "texts alone:": flipped(["cd ${HOME}", "ls"], clean_up=True),
    "no clean_up:": flipped(["cd ${HOME}", "ls"], clean_up=False),
}
for title, value in seen.items():
    print(f"{title:13} {value!r}")
expected = [
    {"Fn::Sub": "cd ${!HOME}\n${Command}"},
    "cd ${!HOME}\nls",
    {"Fn::Join": ["\n", ["cd ${HOME}", "ls"]]},
]
sys.exit(0 if list(seen.values()) == expected else 1)
PYTHON
"$folder/venv/bin/python" "$folder/find.py"
