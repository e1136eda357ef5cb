"""The tools that every part rests on."""
