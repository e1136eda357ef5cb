#!/usr/bin/env bash
# jsonnet (C++): std.parseYaml leaves an alias as the text "*name", where gojsonnet puts the value.
#
# Version:     jsonnet 0.22.0, gojsonnet 0.22.0: the two official implementations, of the same version
# Expectation: one language, one result. std.parseYaml reads YAML, so an alias is what its anchor stands at,
#              or an error where that is not supported.
# Behaviour:   the C++ one drops the anchor and makes of each alias a text with its star; of a merge key a
#              field "<<" with that text. A tag such as !!str is dropped as well: "!!str 12" is the number 12.
#              The Go one reads all three.
# Met by:      a YAML file with anchors that jsonnet reads: "*base" gets into a manifest as the value of a
#              field. Evaluated with the other one, in another pipeline, it is right.
# Seen on:     2026-11-30
# Output seen:                             jsonnet                       gojsonnet
#              {a: &x 80, b: *x}           {"a":80,"b":"*x"}             {"a":80,"b":80}
#              {a: &x {p: 1}, b: {<<: *x}} {"a":{"p":1},"b":{"<<":"*x"}} {"a":{"p":1},"b":{"p":1}}
#              {a: !!str 12}               {"a":12}                      {"a":"12"}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jsonnet==0.22.0 gojsonnet==0.22.0
cat > "$folder/find.py" <<'PYTHON'
import json
import sys

import _gojsonnet
import _jsonnet


def read(implementation, text: str) -> object:
    code = 'std.parseYaml(std.extVar("text"))'
    return json.loads(implementation.evaluate_snippet("find", code, ext_vars={"text": text}))


seen = {}
print(f"{'':27} {'jsonnet':29} gojsonnet")
for text in ["{a: &x 80, b: *x}", "{a: &x {p: 1}, b: {<<: *x}}", "{a: !!str 12}"]:
    seen[text] = [read(_jsonnet, text), read(_gojsonnet, text)]
    cpp, go = (json.dumps(value, separators=(",", ":")) for value in seen[text])
    print(f"{text:27} {cpp:29} {go}")
expected = [
    [{"a": 80, "b": "*x"}, {"a": 80, "b": 80}],
    [{"a": {"p": 1}, "b": {"<<": "*x"}}, {"a": {"p": 1}, "b": {"p": 1}}],
    [{"a": 12}, {"a": "12"}],
]
sys.exit(0 if list(seen.values()) == expected else 1)
PYTHON
"$folder/venv/bin/python" "$folder/find.py"
