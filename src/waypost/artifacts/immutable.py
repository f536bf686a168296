"""The Link header by which servers of tarballs tell Nix what to lock, in our own name.

Nix manual, "Lockable HTTP Tarball Protocol": `Link: <URL>; rel="immutable"` on the answer to a URL whose tarball may
change names one whose tarball will not. That is a URL of the upstream. If the route that was asked leads there, too,
from another path, then that path is what a lock file should have; if none does, we say nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property
from urllib.parse import urlsplit

import msgspec

from waypost.routing.decision import Fetch, Final, Relay, UpstreamHead
from waypost.routing.expression import TemplateError
from waypost.routing.outgoing import Outgoing, keep_query
from waypost.routing.template import Template

# As Nix reads it, which knows of no other parameters and of one link for each header line.
_IMMUTABLE = re.compile(r'<([^<>"\\^`{}|\s]*)>\s*;\s*rel="immutable"', re.IGNORECASE)


class Way:
    """A route, and its way back: from where it leads to the path that leads there."""

    def __init__(self, base_url: str, path: str, to: str) -> None:
        self._base_url = base_url
        self._path = path
        self._to = to

    def back(self, url: str) -> str | None:
        """The URL of ours that leads to this one; None where there is none."""
        if self._inverse is None:
            return None
        authority, there, home, incoming, outgoing = self._inverse
        try:
            parts = urlsplit(url)
        except ValueError:
            return None
        if f"{parts.scheme}://{parts.netloc}".lower() != authority.lower() or parts.fragment:
            return None
        values = there.match(parts.path, None)
        ours = None if values is None else home.location(values)
        # Values may be spelt in several ways, and templates may hold one: what does not lead there is no way back.
        again = None if ours is None else incoming.match(urlsplit(ours).path, None)
        plain = parts._replace(query="").geturl()
        if ours is None or again is None or outgoing.location(again) != plain:
            return None
        return f"{ours}?{keep_query(parts.query)}" if parts.query else ours

    @cached_property
    def _inverse(self) -> tuple[str, Template, Outgoing, Template, Outgoing] | None:
        scheme, _, rest = self._to.partition("://")
        host, slash, path = rest.partition("/")
        try:
            incoming = Template.parse(self._path)
            there = Template.parse(slash + path)
            home = Outgoing.parse(self._base_url + self._path, there.names)
            outgoing = Outgoing.parse(self._to, incoming.names)
        except TemplateError:
            return None
        return f"{scheme}://{host}", there, home, incoming, outgoing


def lockable(fetch: Fetch, back: Callable[[str], str | None]) -> Fetch:
    """The same file, with what its upstream says of a lock said in our name."""

    def then(head: UpstreamHead) -> Final | Fetch:
        made = fetch.then(head)
        if isinstance(made, Fetch):
            return lockable(made, back)
        if not isinstance(made, Relay):
            return made
        links = (_IMMUTABLE.fullmatch(value.strip()) for name, value in head.headers if name == "link")
        ours = next((url for link in links if link and (url := back(link[1])) is not None), None)
        if ours is None:
            return made
        return msgspec.structs.replace(made, headers=(*made.headers, ("link", f'<{ours}>; rel="immutable"')))

    return msgspec.structs.replace(fetch, then=then)
