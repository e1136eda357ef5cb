"""What the next process makes of what it finds."""
