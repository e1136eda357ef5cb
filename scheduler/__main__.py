"""``python -m scheduler``: without arguments it serves, wherever it is typed."""

import sys

from scheduler.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["serve"]))
