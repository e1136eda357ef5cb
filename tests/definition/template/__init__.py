"""References and expressions."""
