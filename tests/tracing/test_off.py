"""What traces cost a process that has none."""

import os
import subprocess
import sys

LOOK = """
import sys
import scheduler.process, scheduler.cli
print([name for name in sys.modules if name.partition(".")[0] in {"opentelemetry", "requests", "google"}])
"""


def test_a_service_without_a_collector_does_not_even_load_the_interface() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    found = subprocess.run([sys.executable, "-c", LOOK], check=True, capture_output=True, env=environment)
    assert found.stdout.decode().strip() == "[]"
