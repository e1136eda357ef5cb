"""Events, logs, and what they come to."""
