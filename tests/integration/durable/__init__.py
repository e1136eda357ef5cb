"""Builds that outlive whatever is killed: real processes, the JetStream store, the public surface alone."""
