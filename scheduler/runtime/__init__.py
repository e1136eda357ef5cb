"""Base of every wing: clocks, caches, fair turns on the loop, threads beside it, and its watchdog."""
