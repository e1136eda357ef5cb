#!/usr/bin/env bash
# doit: a file_dep that spells the path of a target otherwise does not order the two tasks.
#
# Version:     doit 0.37.0
# Expectation: a task whose file_dep is another's target runs after it. That is about files, so out/a, ./out/a
#              and its absolute path are one; where two tasks have the same target doit refuses that, to be
#              certain of which one makes it.
# Behaviour:   the texts are compared. By any other spelling the dependency is one on a file that is just
#              there: its reader runs first, on what the last run left, and is recorded as up to date with
#              that. All tasks succeed, and the next run does the reader once more. Nor is it refused that two
#              tasks make out/a and ./out/a. A pathlib.Path without "." is the same text, so half of the
#              spellings work.
# Met by:      a file that joins its paths with a base folder here and not there. From a fresh clone it fails
#              at once; with files of the last build the result is that of yesterday's input.
# Seen on:     2026-11-30
# Output seen: out/a:           make use; used new
#              ./out/a:         use make; used old
#              absolute:        use make; used old
#              Path("out/a"):   make use; used new
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
from pathlib import Path

def say(text):
    with open("log", "a") as log:
        print(text, end=" ", file=log)

def use():
    say("use")
    Path("used").write_text(Path("out/a").read_text())

def make():
    say("make")
    Path("out/a").write_text("new")

def task_use():
    return {{"actions": [use], "file_dep": [{path}], "targets": ["used"]}}

def task_make():
    return {{"actions": [make], "targets": ["out/a"]}}
"""
seen = []
for title, path in [
    ("out/a:", "'out/a'"),
    ("./out/a:", "'./out/a'"),
    ("absolute:", "Path('out/a').absolute()"),
    ('Path("out/a"):', "Path('out/a')"),
]:
    folder = Path(sys.argv[1]) / f"case{len(seen)}"
    (folder / "out").mkdir(parents=True)
    (folder / "out/a").write_text("old")
    (folder / "dodo.py").write_text(DODO.format(path=path))
    subprocess.run([sys.executable, "-m", "doit"], cwd=folder, stdout=subprocess.DEVNULL, check=True)
    seen.append(((folder / "log").read_text().strip(), (folder / "used").read_text()))
    print(f"{title:16} {seen[-1][0]}; used {seen[-1][1]}")
right, stale = ("make use", "new"), ("use make", "old")
sys.exit(0 if seen == [right, stale, stale, right] else 1)
PYTHON
"$folder/venv/bin/python" "$folder/find.py" "$folder"
