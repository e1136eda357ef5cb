"""What every part rests on: clocks, caches, turns on the loop, threads beside it, what watches over it."""
