"""Lines that commands print, each of them flushed."""

import sys


def complain(text: str) -> None:
    """Print a problem on standard error."""
    sys.stderr.write(f"scheduler: {text}\n")
    sys.stderr.flush()


def say(text: str) -> None:
    """Print a line on standard output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
