"""Shows where the CPU of the service goes: ``python -m benchmarks --only profile``."""
