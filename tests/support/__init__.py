"""Helpers of the tests: brokers, twins, builds, logs."""
