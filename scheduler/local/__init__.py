"""Tools to try the scheduler on one machine: a broker, simulated connectors, generated builds."""
