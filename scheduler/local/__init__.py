"""To try things out on one machine: a broker, connectors and builds that are made up."""
