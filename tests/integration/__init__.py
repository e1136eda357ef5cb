"""The service as a process, on a real nats-server, with connectors and stores in processes of their own."""
