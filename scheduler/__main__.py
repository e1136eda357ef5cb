"""``python -m scheduler``: without arguments it always serves, even at a terminal."""

import sys

from scheduler.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["serve"]))
