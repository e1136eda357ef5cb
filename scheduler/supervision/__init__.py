"""All builds of a process: how they come in, run beside each other, are told of, reported and removed."""
