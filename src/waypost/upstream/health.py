"""Which upstreams are up, as this worker has found: a circuit breaker for each host.

    CLOSED ──failures in a row──▶ OPEN ──after a while──▶ TRIAL ──one success──▶ CLOSED
                                    ▲                        │
                                    └────────failure─────────┘   (and the while doubles)

An open upstream is asked last, not never: if all are open, the request still has a chance. Whoever said when to come
back (Retry-After) is believed, within a bound.

The trial of a registry is a probe of ours (upstream/probe.py), so that no user pays for it; until it goes well the
registry stays open. Of other hosts nobody knows what to ask: there the next request is the trial.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

FAILURES = 2  # in a row, until a breaker opens
FIRST_PAUSE = 5.0  # seconds that it stays open at first
LONGEST_PAUSE = 300.0
LONGEST_RETRY_AFTER = 3600.0
# Pauses are longer by up to this part, so that workers and machines do not come back all at once.
SPREAD = 0.1
# Seconds after which an open breaker that nobody asks for is forgotten: its host may have left the configuration.
UNWANTED = 2 * LONGEST_RETRY_AFTER
# Hosts of which it is remembered that they answered; only what is shown depends on it.
MOST_KNOWN = 1000

_T = TypeVar("_T")


class Breaker:
    """What is known of one host. Times are the clock's.

    failures  in a row
    until     it is left alone until then; 0 when it is closed
    since     when it opened
    pause     for how long it opens next
    probe     the URL that tells whether it is back; None: the next request does
    wanted    when somebody last wanted something of it
    """

    __slots__ = ("failures", "pause", "probe", "since", "until", "wanted", "why")

    def __init__(self) -> None:
        self.failures = 0
        self.pause = FIRST_PAUSE
        self.until = 0.0
        self.since = 0.0
        self.wanted = 0.0
        self.why = ""
        self.probe: str | None = None

    def is_up(self, now: float) -> bool:
        return not self.until or (self.probe is None and self.until <= now)


class Standing(NamedTuple):
    """How a host stands. `since`: when it went down, by the clock; None: it is up."""

    host: str
    since: float | None = None
    why: str = ""


class Health:
    """Breakers by host ("ghcr.io", "reg.acme.example:5000").

    clock   in seconds, monotonic
    chance  a number from 0 to 1, for the spread of pauses
    """

    def __init__(self, clock: Callable[[], float], chance: Callable[[], float] = random.random) -> None:
        self._clock = clock
        self._chance = chance
        self._breakers: dict[str, Breaker] = {}
        self._known: dict[str, None] = {}

    def succeeded(self, host: str) -> bool:
        """Whether it had been left alone before."""
        self._know(host)
        breaker = self._breakers.pop(host, None)
        return breaker is not None and breaker.until > 0

    def failed(self, host: str, why: str, retry_after: float | None = None, probe: str | None = None) -> float:
        """A request failed.

        retry_after  in how many seconds it wants to be asked again, if it said so
        probe        the URL that tells whether it is back, where there is one

        For how many seconds it is left alone, if that was decided just now; else 0.
        """
        breaker = self._breakers.setdefault(host, Breaker())
        now = breaker.wanted = self._clock()
        breaker.why = why
        was_up = breaker.is_up(now)
        breaker.probe = probe or breaker.probe
        if retry_after is not None:
            self._leave(breaker, now, min(retry_after, LONGEST_RETRY_AFTER))
            return breaker.until - now if was_up else 0.0
        breaker.failures += 1
        if breaker.failures >= FAILURES and was_up:
            return self._pause(breaker, now)
        return 0.0

    def to_probe(self) -> list[tuple[str, str]]:
        """(host, URL) of those whose pause is over and of which only a probe can tell whether they are back."""
        now = self._clock()
        for host, one in list(self._breakers.items()):
            if one.until and now - one.wanted > UNWANTED:
                del self._breakers[host]
        return [(host, one.probe) for host, one in self._breakers.items() if one.probe and 0 < one.until <= now]

    def came_back(self, host: str) -> bool:
        """A probe went well; whether that closed the breaker.

        What its requests come to is yet to be seen: one that fails opens it again, for longer than before.
        """
        self._know(host)
        breaker = self._breakers.get(host)
        if breaker is None or not breaker.until:
            return False
        breaker.until = 0.0
        breaker.failures = FAILURES - 1
        return True

    def stays_down(self, host: str, why: str, retry_after: float | None = None) -> None:
        """A probe failed."""
        breaker = self._breakers.get(host)
        if breaker is None or not breaker.until:
            return  # a request has found it well meanwhile
        breaker.why = why
        now = self._clock()
        self._pause(breaker, now)
        if retry_after is not None:
            self._leave(breaker, now, min(retry_after, LONGEST_RETRY_AFTER))

    def is_up(self, host: str) -> bool:
        """Whether it may be asked first: it never failed, not often enough, or is on trial."""
        breaker = self._breakers.get(host)
        return breaker is None or breaker.is_up(self._clock())

    def order(self, candidates: Sequence[_T], host_of: Callable[[_T], str]) -> list[_T]:
        """Candidates that are up first, each group in its own order."""
        return sorted(candidates, key=lambda candidate: not self._wanted(host_of(candidate)))

    def down(self) -> list[Standing]:
        """Those that are left alone now."""
        now = self._clock()
        breakers = sorted(self._breakers.items())
        return [Standing(host, one.since, one.why) for host, one in breakers if not one.is_up(now)]

    def standings(self) -> list[Standing]:
        """All that answered or are left alone now, by name."""
        down = self.down()
        return sorted([*down, *map(Standing, self._known.keys() - {one.host for one in down})])

    def _know(self, host: str) -> None:
        if host not in self._known:
            if len(self._known) >= MOST_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[host] = None

    def _wanted(self, host: str) -> bool:
        breaker = self._breakers.get(host)
        if breaker is None:
            return True
        now = breaker.wanted = self._clock()
        return breaker.is_up(now)

    def _pause(self, breaker: Breaker, now: float) -> float:
        self._leave(breaker, now, breaker.pause)
        breaker.pause = min(LONGEST_PAUSE, breaker.pause * 2)
        return breaker.until - now

    def _leave(self, breaker: Breaker, now: float, seconds: float) -> None:
        if not breaker.until:
            breaker.since = now
        breaker.until = max(breaker.until, now + seconds * (1 + SPREAD * self._chance()))


def retry_after(value: str | None) -> float | None:
    """RFC 9110 section 10.2.3, in seconds. A date is not understood, and taken for nothing said."""
    return float(value[:9]) if value is not None and value.isascii() and value.isdigit() else None
