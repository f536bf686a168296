"""Certificates: what is presented to whom."""
