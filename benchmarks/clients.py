"""Requests as clients of a download server send them: several kinds of clients, each with its own headers."""

from __future__ import annotations

HOST = "get.acme.example"
ROUTE = "/{version}/{platform}/skates.tar.gz"
TARGET = "https://dl.example.net/skates-{version}-{platform}.tar.gz"
CONFIG = f"""
base_domain = "waypost.example"
[[package]]
type = "file"
name = "rocket-skates-cli"
owner = "acme"
domain = "{HOST}"
routes = [{{ path = "{ROUTE}", to = "{TARGET}" }}]
"""

_PIP = (
    'pip/26.1 {"ci":null,"cpu":"x86_64","distro":{"id":"bookworm","libc":{"lib":"glibc","version":"2.36"},'
    '"name":"Debian GNU/Linux","version":"12"},"implementation":{"name":"CPython","version":"3.11.2"},'
    '"installer":{"name":"pip","version":"26.1"},"openssl_version":"OpenSSL 3.0.15","python":"3.11.2",'
    '"system":{"name":"Linux","release":"6.1.0"}}'
)
_BROWSER = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
_BREW = "Homebrew/5.0.2 (Macintosh; arm64 Mac OS X 26.1) curl/8.7.1"
# Header lines without Host, as these clients send them; User-Agent first.
_TEXTS = (
    """
    User-Agent: curl/8.14.1
    Accept: */*
    Accept-Encoding: deflate, gzip, br, zstd
    Referer: https://acme.example/install
    """,
    """
    User-Agent: Wget/1.25.0
    Accept: */*
    Accept-Encoding: identity
    Connection: Keep-Alive
    """,
    f"""
    User-Agent: {_PIP}
    Accept-Encoding: gzip, deflate
    Accept: */*
    Connection: keep-alive
    Cache-Control: max-age=0
    """,
    f"""
    User-Agent: {_BREW}
    Accept: */*
    Accept-Language: en
    Accept-Encoding: gzip
    """,
    f"""
    User-Agent: {_BROWSER}
    Accept: text/html,application/xhtml+xml,*/*;q=0.8
    Accept-Language: de,en;q=0.5
    Accept-Encoding: gzip, deflate, br
    Referer: https://acme.example/download
    Upgrade-Insecure-Requests: 1
    """,
    """
    User-Agent: Go-http-client/1.1
    Accept: application/octet-stream
    Accept-Encoding: gzip
    Cache-Control: no-cache
    """,
    """
    User-Agent: python-requests/2.34.0
    Accept-Encoding: gzip, deflate
    Accept: */*
    Connection: keep-alive
    """,
    """
    User-Agent: aria2/1.37.0
    Accept: */*
    Accept-Encoding: deflate, gzip
    Pragma: no-cache
    Cache-Control: no-cache
    """,
)


def _lines(text: str) -> tuple[tuple[str, str], ...]:
    found = [line.strip().partition(": ") for line in text.strip().splitlines()]
    return tuple((name, value) for name, _, value in found)


KINDS: tuple[tuple[tuple[str, str], ...], ...] = tuple(map(_lines, _TEXTS))
PLATFORMS = ("linux-amd64", "linux-arm64", "darwin-arm64", "windows-amd64")


def path(number: int) -> str:
    """One of many paths that the route matches."""
    return f"/{number % 7}.{number % 200}.0/{PLATFORMS[number % 4]}/skates.tar.gz"


def header_lines(number: int, kinds: int) -> tuple[tuple[str, str], ...]:
    """The headers of one client of `kinds` different ones, Host first."""
    kind = number % kinds
    lines = KINDS[kind % len(KINDS)]
    if kind >= len(KINDS):
        (name, agent), *rest = lines
        lines = ((name, f"{agent} build/{kind}"), *rest)
    return (("Host", HOST), *lines)


def raw(number: int, kinds: int = len(KINDS)) -> bytes:
    """A whole request."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in header_lines(number, kinds))
    return f"GET {path(number)} HTTP/1.1\r\n{lines}\r\n".encode()
