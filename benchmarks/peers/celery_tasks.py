"""The application of Celery's workers, and of the process that sends them tasks."""

import os

from celery import Celery  # type: ignore[import-not-found]

ADDRESS = "PEERS_REDIS"
"""Variable with the URL of Redis: it is the broker, and keeps the results."""

app = Celery("peers", broker=os.environ[ADDRESS], backend=os.environ[ADDRESS])


@app.task  # type: ignore[untyped-decorator]
def noop() -> None:
    """Do nothing."""
