"""How this process gets and gives back memory."""

from __future__ import annotations

import ctypes

_C = ctypes.CDLL(None)

# What glibc calls them (mallopt(3)).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

# Freed memory at the end of the heap that is kept for the next piece of a body.
KEPT = 16 * 1024 * 1024
# From this size on memory is mapped for one object, and given back with it. Pieces of bodies are smaller.
MAPPED = 1024 * 1024


def keep_freed() -> None:
    """Does not give the kernel back what is wanted again at once.

    A read from an upstream takes up to 256 KB, twice, and frees them a moment later. Left to itself glibc returns that
    memory each time and asks for it again, and the kernel clears every page of it: a quarter of the CPU of a stream
    (docs/performance.md). With another C library this does nothing.
    """
    mallopt = getattr(_C, "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, MAPPED)
        mallopt(_M_TRIM_THRESHOLD, KEPT)


def give_back() -> None:
    """Gives back what is free between objects that are not, all but KEPT. Takes a millisecond; many, if much is in
    small pieces."""
    trim = getattr(_C, "malloc_trim", None)
    if trim is not None:
        trim(KEPT)


class Departures:
    """Whether many have gone, of numbers of connections that are told every now and then.

    It is so once more after the last of them: what they held is let go of a moment later than they are, and the few who
    go after the many would be too few by themselves.
    """

    def __init__(self, many: int) -> None:
        self._many = many
        self._most = 0
        self._before = 0

    def are_many(self, now: int) -> bool:
        gone = self._most - now >= self._many
        still_going = now < self._before
        self._most = now if gone and not still_going else max(self._most, now)
        self._before = now
        return gone
