"""The event store: one contract, one module per engine."""
