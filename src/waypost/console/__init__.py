"""The control plane's own address: health, metrics and numbers."""
