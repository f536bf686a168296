"""Finds the package types: every module of this package that has a KIND."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from waypost import artifacts
from waypost.artifacts.kind import Kind


@cache
def kinds() -> tuple[Kind, ...]:
    """Every package type, in the order in which they are asked."""
    found: list[Kind] = []
    for module in pkgutil.iter_modules(artifacts.__path__):
        kind = getattr(importlib.import_module(f"{artifacts.__name__}.{module.name}"), "KIND", None)
        found.extend(kind if isinstance(kind, tuple) else (kind,) if kind is not None else ())
    return tuple(sorted(found, key=lambda kind: (kind.order, kind.name)))
