"""What happened to a build: its events, how its log writes them down, and what a log comes to."""
