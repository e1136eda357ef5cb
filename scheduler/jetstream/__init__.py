"""JetStream over the Bus: its API, reading and following streams, and an object store."""
