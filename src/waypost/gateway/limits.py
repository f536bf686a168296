"""What one client may ask of a worker before it is refused."""

from __future__ import annotations

from msgspec import Struct


class Limits(Struct, frozen=True, kw_only=True):
    """Bounds on requests and connections, and what happens beyond them. Sizes in bytes, times in seconds.

    request_line           without its CRLF: 414
    headers                all header lines together, with their line ends: 431
    header_lines           how many header lines: 431
    body                   after the chunked coding is taken off: 413
    head_seconds           from the first byte of a request to the end of its headers: 408
                           (a new connection that sends nothing for as long is closed without a word)
    body_seconds           from the end of the headers to the end of the body: 408
    idle_seconds           between requests: closed without a word
    stall_seconds          an answer of which the client takes nothing: connection aborted
    half_closed_seconds    how long an answer is still worked on after the client ended its sending side
    linger_seconds         how long we read on after a refusal, so that the client can still receive it
    connections            open at once, in one worker: 503
    connections_per_peer   the same from one IPv4 address or one IPv6 /64 that is no trusted proxy: 503
    sweep_seconds          how often the times above are looked at, hence how exact they are
    """

    request_line: int = 8 * 1024
    headers: int = 32 * 1024
    header_lines: int = 128
    body: int = 64 * 1024
    head_seconds: float = 10.0
    body_seconds: float = 20.0
    idle_seconds: float = 75.0
    stall_seconds: float = 60.0
    half_closed_seconds: float = 10.0
    linger_seconds: float = 2.0
    connections: int = 20_000
    connections_per_peer: int = 1024
    sweep_seconds: float = 1.0
