"""All builds of a process."""
