"""The fleet: all schedulers on one broker that share the builds of its JetStream."""
