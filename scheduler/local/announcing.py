"""Leaves a record of an embedded broker, by which other commands of the same user find it."""

import contextlib
import os
import platform
from collections.abc import Iterator

import msgspec
import structlog

from scheduler.client.brokers import BrokerRecord, record_path, records_dir
from scheduler.config import default_data_dir
from scheduler.local.broker import Broker
from scheduler.runtime.private_files import write_private

log = structlog.get_logger(__name__)


@contextlib.contextmanager
def announced(broker: Broker, *, serves: bool) -> Iterator[None]:
    """Keep a record of a broker while the context lasts; if that is impossible, log it.

    Args:
        broker: the broker.
        serves: whether its scheduler serves until it is stopped, and does not end with a build.
    """
    data_dir = broker.data_dir.absolute()
    record = BrokerRecord(broker.url, str(data_dir), os.getpid(), platform.node(), serves)
    path = record_path(data_dir)
    try:
        # `parents=True` would leave the data directory open to others.
        default_data_dir().parent.mkdir(parents=True, exist_ok=True)
        for folder in (default_data_dir(), records_dir()):
            folder.mkdir(mode=0o700, exist_ok=True)
        write_private(path, msgspec.json.encode(record).decode())
    except OSError as error:
        log.warning(
            "other commands will not find this broker by themselves", file=str(path), why=error.strerror
        )
    try:
        yield
    finally:
        # We still hold the lock: the record is ours.
        with contextlib.suppress(OSError):
            path.unlink()
