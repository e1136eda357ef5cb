#!/usr/bin/env bash
# doit --continue runs a task whose setup task failed, and takes it for up to date from then on.
#
# Version:     doit 0.37.0
# Expectation: --continue goes on with what does not depend on a failure, as make -k does. A task's "setup"
#              names tasks that have to run before it; where one of them failed, the task is not run, nor what
#              depends on it. Without --continue the run ends at the failed setup task.
# Behaviour:   that holds for task_dep, whose dependents are reported as UnmetDependency. A failed setup task
#              makes the exit code 1, and the task is run nevertheless, as is what depends on it; also where
#              the setup task was not run itself, because something that it depends on failed. What ran so is
#              recorded as done: once the setup task succeeds it is up to date, and is not run again.
# Met by:      a nightly run with --continue where the setup task selects the account to deploy to, or starts
#              a database.
# Seen on:     2026-11-30
# Output seen: by task_dep:           account(failed); then account deploy notify
#              by setup:              account(failed) deploy notify; then notify
#              setup that cannot run: account(failed) deploy notify; then notify
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
import os
from doit.tools import run_once

def say(text):
    with open("log", "a") as log:
        print(text, end=" ", file=log)

def account():
    works = os.path.exists("works")
    say("account" if works else "account(failed)")
    return works

def task_account():
    return {{"actions": [account]}}

def task_session():
    return {{"actions": ["true"], "task_dep": ["account"]}}

def task_deploy():
    return {{"actions": [(say, ["deploy"])], "uptodate": [run_once], {relation}}}

def task_notify():
    return {{"actions": [(say, ["notify"])], "task_dep": ["deploy"]}}
"""


def run(folder: Path) -> str:
    """Return what is run for the task "notify", in its order."""
    (folder / "log").unlink(missing_ok=True)
    command = [sys.executable, "-m", "doit", "run", "--continue", "notify"]
    subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return (folder / "log").read_text().strip()


seen = []
for title, relation in [
    ("by task_dep:", '"task_dep": ["account"]'),
    ("by setup:", '"setup": ["account"]'),
    ("setup that cannot run:", '"setup": ["session"]'),
]:
    folder = Path(sys.argv[1]) / f"case{len(seen)}"
    folder.mkdir()
    (folder / "dodo.py").write_text(DODO.format(relation=relation))
    before = run(folder)
    (folder / "works").touch()
    after = run(folder)
    seen.append((before, after))
    print(f"{title:22} {before}; then {after}")
nevertheless = ("account(failed) deploy notify", "notify")
sys.exit(0 if seen == [("account(failed)", "account deploy notify"), nevertheless, nevertheless] else 1)
PYTHON
"$folder/venv/bin/python" "$folder/find.py" "$folder"
