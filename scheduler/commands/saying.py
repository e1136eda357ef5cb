"""What commands say, a line at a time, each seen at once."""

import sys


def complain(text: str) -> None:
    """Say what is wrong, on standard error."""
    sys.stderr.write(f"scheduler: {text}\n")
    sys.stderr.flush()


def say(text: str) -> None:
    """Say something on standard output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
