"""What tests share: brokers, twins, builds, logs."""
