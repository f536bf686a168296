"""Upstreams that the operator has declared: where they are really fetched from, and as whom."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct


class Declared(Struct, frozen=True, kw_only=True):
    """A host that we may be sent to: a registry, a token service, a blob or file store.

    host      lower case, with :PORT where its URLs have one
    connect   a base URL without path. https://HOST/… is fetched from there instead, and private addresses are
              allowed for it. None: fetched from where its name leads, under the address guard.
    username, password
              the maintainer's own account, for quotas. Not used yet: every token is anonymous.
    """

    host: str
    connect: str | None = None
    username: str | None = None
    password: str | None = None


def by_host(declared: Iterable[Declared]) -> dict[str, Declared]:
    """The mapping that `Client` and `Upstreams` take."""
    return {one.host: one for one in declared}
