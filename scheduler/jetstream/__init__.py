"""JetStream over the Bus: its API, streams that are read and followed, an object store."""
