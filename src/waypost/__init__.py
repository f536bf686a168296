"""Waypost: one address for ever for everything a project ships."""

__version__ = "0.1.0.dev0"
