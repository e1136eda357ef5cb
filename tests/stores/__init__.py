"""Where builds are kept."""
