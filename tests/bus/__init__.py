"""The bus, over real brokers and in memory."""
