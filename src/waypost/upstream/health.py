"""Which upstreams are up, as this worker has found: a circuit breaker for each host.

    CLOSED ──failures in a row──▶ OPEN ──after a while──▶ TRIAL ──one success──▶ CLOSED
                                    ▲                        │
                                    └────────failure─────────┘   (and the while doubles)

An open upstream is asked last, not never: if all are open, the request still has a chance. Whoever said when to come
back (Retry-After) is believed, within a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

FAILURES = 2  # in a row, until a breaker opens
FIRST_PAUSE = 5.0  # seconds that it stays open at first
LONGEST_PAUSE = 300.0
LONGEST_RETRY_AFTER = 3600.0

_T = TypeVar("_T")


class Breaker:
    """What is known of one host. `until`: it is left alone until then; 0 when it is up."""

    __slots__ = ("failures", "pause", "until", "why")

    def __init__(self) -> None:
        self.failures = 0
        self.pause = FIRST_PAUSE
        self.until = 0.0
        self.why = ""


class Health:
    """Breakers by host ("ghcr.io", "reg.acme.example:5000"). `clock` in seconds, monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._breakers: dict[str, Breaker] = {}

    def succeeded(self, host: str) -> bool:
        """Whether it had been left alone before."""
        breaker = self._breakers.pop(host, None)
        return breaker is not None and breaker.until > 0

    def failed(self, host: str, why: str, retry_after: float | None = None) -> float:
        """`retry_after`: in how many seconds it wants to be asked again, if it said so.

        For how many seconds it is left alone, if that was decided just now; else 0.
        """
        breaker = self._breakers.setdefault(host, Breaker())
        now = self._clock()
        breaker.why = why
        was_up = breaker.until <= now
        if retry_after is not None:
            breaker.until = max(breaker.until, now + min(retry_after, LONGEST_RETRY_AFTER))
            return breaker.until - now if was_up else 0.0
        breaker.failures += 1
        if breaker.failures >= FAILURES and was_up:
            breaker.until = now + breaker.pause
            breaker.pause = min(LONGEST_PAUSE, breaker.pause * 2)
            return breaker.until - now
        return 0.0

    def is_up(self, host: str) -> bool:
        """Whether it may be asked first: it never failed, not often enough, or its pause is over."""
        breaker = self._breakers.get(host)
        return breaker is None or breaker.until <= self._clock()

    def order(self, candidates: Sequence[_T], host_of: Callable[[_T], str]) -> list[_T]:
        """Candidates that are up first, each group in its own order."""
        return sorted(candidates, key=lambda candidate: not self.is_up(host_of(candidate)))

    def down(self) -> list[tuple[str, str, float]]:
        """(host, why, seconds until it is asked again) of those that are left alone now."""
        now = self._clock()
        return [(host, one.why, one.until - now) for host, one in sorted(self._breakers.items()) if one.until > now]
