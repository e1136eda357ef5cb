"""What of a build is secret, and texts without it."""
