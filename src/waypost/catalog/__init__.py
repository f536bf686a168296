"""What is published where: turns declarations into the snapshot that gateways serve."""
