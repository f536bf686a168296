"""What Waypost costs, measured: `python -m benchmarks [NAME…] [--quick]`. See docs/performance.md."""
