"""The commands of ``python -m scheduler``, one module each; loaded when they are asked for."""
