"""Measures whether hostile input can delay others: each attack beside a healthy build, on a real broker.

Run it with ``python -m benchmarks --only hostile``. `judging` has the rule, `attacks` what is tried.
"""
