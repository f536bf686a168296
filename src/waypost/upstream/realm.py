"""The token endpoint of a registry: what is asked there, with whose credentials, and what it grants.

Docker Registry v2 authentication, "Token Authentication Specification" and "OAuth2 Token Authentication". The rules:

- A realm is what a registry's challenge names. Without credentials it may be anywhere that we visit at all.
- Credentials go only to a realm that the registry's host vouches for: the same host, one of the same registrable
  domain (Public Suffix List, private names included), or one that the operator declares as [[upstream]].
- Neither goes to plain http, unless the operator's `connect` leads there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from urllib.parse import urlencode, urlsplit

import msgspec
from msgspec import Struct
from publicsuffixlist import PublicSuffixList

from waypost.routing.decision import Basic, Credentials, Headers
from waypost.upstream.challenge import Challenge
from waypost.upstream.client import Client, Response
from waypost.upstream.failure import UpstreamBusy, UpstreamForbidden, UpstreamMisbehaved

DEFAULT_LIFE = 60.0  # "expires_in … if omitted, this defaults to 60 seconds": distribution token spec
LONGEST_LIFE = 3600.0
LARGEST_ANSWER = 65_536
LARGEST_TOKEN = 16_384
# OAuth2 token authentication wants a client's name, and means the program that asks.
CLIENT_ID = "waypost"


# Hosts of customers who do not know each other stand under these, and the Public Suffix List has none of them.
SHARED = frozenset(
    ("amazonaws.com", "amazonaws.com.cn", "azurecr.cn", "azurecr.io", "azurecr.us", "jfrog.io", "ocir.io")
)


class Grant(Struct, frozen=True):
    """A token, and the seconds that it is good for. Its refresh token, if any, is not even read."""

    token: str
    life: float


class _Answer(Struct):
    token: str | None = None
    access_token: str | None = None
    expires_in: float | None = None


_decode = msgspec.json.Decoder(_Answer, strict=False).decode


async def ask_realm(
    client: Client, registry: str, challenge: Challenge, scopes: Sequence[str], credentials: Credentials | None = None
) -> Grant | None:
    """What the realm of a Bearer challenge of `registry` grants; None: nothing, to these credentials or to nobody.

    Raises UpstreamError; UpstreamForbidden if the credentials must not go there.
    """
    realm = challenge.parameters["realm"]
    target = client.target(realm)  # raises if it is no URL that we would ever visit
    parts = urlsplit(realm)
    if parts.scheme == "http" and not (target.declared or _is_plain(client, registry)):
        raise UpstreamForbidden(target.host, "its token realm is not https")
    if credentials is not None and not vouches(registry, target.host, client):
        why = f"{registry} names it as its token realm, and is no kin of it; declare it as [[upstream]] if it is meant"
        raise UpstreamForbidden(target.host, why)
    # Quay and others know GET alone, which has no way to present a refresh token: that is what POST is for.
    asked = [("service", challenge.parameters.get("service", "")), *(("scope", scope) for scope in scopes)]
    asked = [(name, value) for name, value in asked if value]
    headers: Headers = (("Accept", "application/json"),)
    if credentials is None or isinstance(credentials, Basic):
        query = "&".join(filter(None, (parts.query, urlencode(asked))))
        url = parts._replace(query=query, fragment="").geturl()
        if credentials is not None:
            headers = (*headers, ("Authorization", credentials.header()))
        answer = await client.open("GET", url, headers)
    else:
        # RFC 6749 section 6; several scopes are one value there, with spaces.
        form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", credentials.token),
            ("client_id", CLIENT_ID),
            ("service", challenge.parameters.get("service", "")),
            ("scope", " ".join(scopes)),
        ]
        body = urlencode([pair for pair in form if pair[1]], errors="surrogateescape").encode()
        headers = (*headers, ("Content-Type", "application/x-www-form-urlencoded"))
        url = parts._replace(fragment="").geturl()
        answer = await client.open("POST", url, headers, body)
    try:
        return await _read(target.host, answer)
    finally:
        await answer.aclose()


async def _read(realm: str, answer: Response) -> Grant | None:
    if answer.status == 429:
        raise UpstreamBusy(realm, "asks us to come back later", answer.header("retry-after"))
    if answer.status in (400, 401, 403, 404):
        return None
    if answer.status != 200:
        raise UpstreamMisbehaved(realm, f"answered {answer.status} when asked for a token")
    try:
        grant = _decode(await answer.read(LARGEST_ANSWER))
    except msgspec.DecodeError:
        raise UpstreamMisbehaved(realm, "its answer holds no token") from None
    token = grant.token or grant.access_token
    # RFC 6750 section 2.1: b68token. We allow any visible ASCII, and nothing that could end a header line.
    if not token or len(token) > LARGEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise UpstreamMisbehaved(realm, "its answer holds no token")
    # `issued_at` plays no part: clocks differ.
    life = grant.expires_in if grant.expires_in is not None else DEFAULT_LIFE
    return Grant(token, min(max(life, 0.0), LONGEST_LIFE))


def _is_plain(client: Client, registry: str) -> bool:
    """A token must not cross a network in the clear, unless the operator has sent us there that way."""
    upstream = client.declared.get(registry)
    return upstream is not None and (upstream.connect or "").startswith("http://")


def vouches(registry: str, realm: str, client: Client) -> bool:
    """Whether credentials that are meant for `registry` may go to `realm`; both with :PORT if they have one."""
    if registry == realm or realm in client.declared:
        return True
    own, other = (_registrable(host.rpartition(":")[0] or host) for host in (registry, realm))
    return own is not None and own == other and own not in SHARED


def _registrable(host: str) -> str | None:
    """The name that somebody registered: docker.io of auth.docker.io; None of an address or a bare suffix."""
    if host.startswith("[") or host.replace(".", "").isdigit():
        return None
    return _suffixes().privatesuffix(host)


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()
