"""The one thing that routing knows of a package type: something that may answer a request."""

from __future__ import annotations

from typing import Protocol

from waypost.routing.decision import Decision
from waypost.routing.request import Request


class Site(Protocol):
    """Everything that one package type serves on one host.

    Contract, checked for every implementation by tests/unit/test_sites.py:
    - built once from validated rows, then immutable; no I/O, no clock, no randomness;
    - `decide` returns None for what is not its own, and never raises for any request;
    - request bytes never choose scheme, host or port of a Redirect or Fetch;
    - time is independent of the number of rows.
    """

    def decide(self, request: Request) -> Decision | None: ...

    def explain(self, request: Request) -> list[str]:
        """Sentences for `waypost explain`: which row answers, and why the nearest others do not."""
        ...
