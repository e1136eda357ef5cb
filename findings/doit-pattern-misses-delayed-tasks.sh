#!/usr/bin/env bash
# doit: a dependency on "build:*" leaves out tasks that are created later, and so is none.
#
# Version:     doit 0.37.0
# Expectation: task_dep may hold a pattern. "build:*" are the sub-tasks of build, and where build's creator is
#              decorated with create_after they are known when it has run, which the pattern causes, as the
#              plain name "build" does. Or it is refused, as "build:a" is: "does not exist".
# Behaviour:   patterns are resolved when the file is loaded, and stand for nothing then. No word about that:
#              "doit publish" publishes, and neither plans nor builds. A run of everything is right as long as
#              publish stands below build in the file and one process is enough. With two it is published
#              while the part is built.
# Met by:      a build whose parts are known after a planning step, once its creator gets the decorator; the
#              pattern was right before.
# Seen on:     2026-11-30
# Output seen: at once,  "build:*", doit publish:  plan a publish
#              later,    "build",   doit publish:  plan a publish
#              later,    "build:*", doit publish:  publish
#              later,    "build:*", doit:          plan a publish
#              later,    "build:*", doit -n 2:     plan publish a  (or "publish plan a")
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q doit==0.37.0
cat > "$folder/find.py" <<'PYTHON'
import subprocess
import sys
from pathlib import Path

DODO = """
import time
from doit import create_after

def say(text, seconds=0):
    time.sleep(seconds)
    with open("log", "a") as log:
        print(text, end=" ", file=log)

def task_plan():
    return {{"actions": [(say, ["plan"])]}}

{decorator}
def task_build():
    yield {{"name": "a", "actions": [(say, ["a", 1])], "task_dep": ["plan"]}}

def task_publish():
    return {{"actions": [(say, ["publish"])], "task_dep": [{dependency!r}]}}
"""
seen = []
for title, dependency, arguments in [
    ("at once,", "build:*", ["publish"]),
    ("later,", "build", ["publish"]),
    ("later,", "build:*", ["publish"]),
    ("later,", "build:*", []),
    ("later,", "build:*", ["-n", "2"]),
]:
    folder = Path(sys.argv[1]) / f"case{len(seen)}"
    folder.mkdir()
    decorator = "@create_after(executed='plan')" if title == "later," else ""
    (folder / "dodo.py").write_text(DODO.format(decorator=decorator, dependency=dependency))
    command = [sys.executable, "-m", "doit", *arguments]
    subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)
    seen.append((folder / "log").read_text().split())
    quoted, told = f'"{dependency}",', " ".join(["doit", *arguments]) + ":"
    print(f"{title:9} {quoted:10} {told:14}", *seen[-1])
right = ["plan", "a", "publish"]
*one_process, two = seen
before = two.index("publish") < two.index("a")
sys.exit(0 if one_process == [right, right, ["publish"], right] and before else 1)
PYTHON
"$folder/venv/bin/python" "$folder/find.py" "$folder"
