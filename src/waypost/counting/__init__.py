"""What counts, and with what client: the only place that decides it."""
