"""JetStream, real and in memory."""
