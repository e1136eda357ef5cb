"""Tests of `scheduler.notifying`."""
