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
