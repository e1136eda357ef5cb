"""All builds of a process: they are taken in, run beside each other, followed, reported and removed."""
