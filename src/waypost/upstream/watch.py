"""Whether upstreams are up that clients are only sent to: nobody here sees what they answer, so they are asked.

One worker does it for all. It asks only those that clients were sent to lately and could have been sent past, and
those that were left, and decides by that from where indexes come. Mirrors may differ for a while, and a client that
takes a part of an index from each finds that they do not fit. So all clients are sent to one of them, and to another
only once that was down for a while. They go back when it was up for a longer while.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct, structs

from waypost.upstream.health import FAILURES, LONGEST_RETRY_AFTER, Health, Standing
from waypost.upstream.outage import Outage

# Probes of one upstream are this far apart, in parts of `every`.
SOONEST, LATEST = 0.75, 1.5
# After a first failure it is asked again in this part of `every`: clients may be failing.
AGAIN = 0.1
# Upstreams that are watched at the same time.
MOST_WATCHED = 256
# Seconds after which an upstream that was left, and never came back, is forgotten: it may have left the configuration.
FORGOTTEN = 7 * 86400.0


class Pace(Struct, frozen=True):
    """In seconds.

    every  between two probes of an upstream, roughly
    hold   how long an upstream is down until indexes come from another one
    back   how long it is up until they come from it again
    """

    every: float = 20.0
    hold: float = 30.0
    back: float = 600.0


class _Watched:
    """One upstream. Moments are the clock's.

    url       that tells whether it is up
    due       when it is asked next
    failures  in a row
    failed    the first of them
    down      since when it is; None: it is not
    up        since when it answers, as far as it was asked; None: it did not
    left      indexes come from another one
    """

    __slots__ = ("down", "due", "failed", "failures", "left", "up", "url", "why")

    def __init__(self, url: str, due: float) -> None:
        self.url = url
        self.due = due
        self.failures = 0
        self.failed = 0.0
        self.down: float | None = None
        self.up: float | None = None
        self.left = False
        self.why = ""


class Watch:
    """Upstreams by host.

    clock   in seconds, monotonic
    chance  a number from 0 to 1, for the spread of probes
    """

    def __init__(
        self, clock: Callable[[], float], pace: Pace | None = None, chance: Callable[[], float] = random.random
    ) -> None:
        self.pace = pace or Pace()
        self._clock = clock
        self._chance = chance
        self._watched: dict[str, _Watched] = {}

    def want(self, asked: Mapping[str, str]) -> None:
        """Watches these hosts from now on, each by its URL, and those that were left; no others."""
        now = self._clock()
        for host, one in list(self._watched.items()):
            if host not in asked and (not one.left or (one.down is not None and now - one.down > FORGOTTEN)):
                del self._watched[host]
        for host, url in asked.items():
            known = self._watched.get(host)
            if known is not None:
                known.url = url
            elif len(self._watched) < MOST_WATCHED:
                self._watched[host] = _Watched(url, now)

    def due(self, most: int) -> list[tuple[str, str]]:
        """(host, URL) of those that are to be asked now. Whoever takes them tells what came of it."""
        now = self._clock()
        due = sorted((one.due, host) for host, one in self._watched.items() if one.due <= now)[:most]
        for _, host in due:
            self._put_off(self._watched[host])
        return [(host, self._watched[host].url) for _, host in due]

    def answered(self, host: str) -> bool:
        """Whether it was down before."""
        one = self._watched.get(host)
        if one is None:
            return False
        was_down = one.down is not None
        one.failures = 0
        one.down = None
        if one.up is None:
            one.up = self._clock()
        return was_down

    def failed(self, host: str, why: str) -> bool:
        """Whether it is down since just now."""
        one = self._watched.get(host)
        if one is None:
            return False
        now = self._clock()
        one.why = why
        one.failures += 1
        if one.failures == 1:
            one.failed = now
            one.due = now + self.pace.every * AGAIN
        if one.failures < FAILURES or one.down is not None:
            return False
        one.down = one.failed
        one.up = None
        return True

    def cannot_tell(self, host: str, seconds: float | None = None) -> None:
        """It says nothing of how others are served. It wants to be left alone for so many seconds."""
        one = self._watched.get(host)
        if one is not None and seconds is not None:
            one.due = max(one.due, self._clock() + min(seconds, LONGEST_RETRY_AFTER))

    def decide(self) -> tuple[list[str], list[str]]:
        """Hosts that indexes come from no more, and those that they come from again, since just now."""
        now = self._clock()
        left, back = [], []
        for host, one in self._watched.items():
            if one.down is not None:
                if not one.left and now - one.down >= self.pace.hold:
                    one.left = True
                    left.append(host)
            elif one.left and one.up is not None and now - one.up >= self.pace.back:
                one.left = False
                back.append(host)
        return left, back

    def outages(self) -> list[Outage]:
        """What clients are to be sent past. Moments are still the clock's."""
        return [
            Outage(host, one.url, one.why, one.down, one.up, one.left)
            for host, one in sorted(self._watched.items())
            if one.left or one.down is not None
        ]

    def standings(self) -> list[Standing]:
        """Those of which it is known how they stand."""
        return [
            Standing(host, one.down, one.why if one.down is not None else "")
            for host, one in sorted(self._watched.items())
            if one.down is not None or one.up is not None
        ]

    def restore(self, outages: Sequence[Outage]) -> None:
        """What was found before a restart, with moments of the clock. Who was up again is so since now, until asked."""
        now = self._clock()
        for one in outages[:MOST_WATCHED]:
            watched = self._watched[one.host] = _Watched(one.url, now)
            watched.left = one.left
            watched.why = one.why
            if one.down_since is not None:
                watched.down = watched.failed = min(one.down_since, now)
                watched.failures = FAILURES
            elif one.up_since is not None:
                watched.up = now

    def _put_off(self, one: _Watched) -> None:
        spread = SOONEST + (LATEST - SOONEST) * self._chance()
        one.due = self._clock() + self.pace.every * spread


def together(health: Health, watch: Watch | None) -> list[Standing]:
    """How hosts stand by what requests came to and by what they were asked; who is down in one view is down."""
    found = {one.host: one for one in watch.standings()} if watch is not None else {}
    for one in health.standings():
        if one.host not in found or found[one.host].since is None:
            found[one.host] = one
    return [found[host] for host in sorted(found)]


def moved(outages: Sequence[Outage], seconds: float) -> list[Outage]:
    """Outages by another clock that is `seconds` ahead."""

    def at(moment: float | None) -> float | None:
        return None if moment is None else moment + seconds

    return [structs.replace(one, down_since=at(one.down_since), up_since=at(one.up_since)) for one in outages]
