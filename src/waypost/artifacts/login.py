"""Domains whose users log in: `login = "pass-through"`. Each registry behind the domain decides whom it lets in.

We keep no accounts. /token takes a user's credentials to the one registry that the scope names, and hands back what
that registry granted, sealed (waypost.artifacts.token). What clients ask there:

    GET                                  no credentials: a token that opens what everybody may read
    GET, Authorization: Basic            most clients
    POST grant_type=password             containerd, helm
    POST grant_type=refresh_token        Docker's helpers that keep a registry's own refresh token
    any of them without a scope          `docker login` and its like: checked at the domain's login_upstream

Docker Registry v2 authentication, "Token Authentication Specification" and "OAuth2 Token Authentication". We deviate
where it asks for a refresh token: none is given out, since it would be sent to every registry behind the domain.
"""

from __future__ import annotations

import binascii
import time
from base64 import b64decode
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import parse_qsl

import msgspec

from waypost.artifacts.distribution import Image
from waypost.artifacts.token import LONGEST, Token, seal, unseal
from waypost.routing.decision import (
    Basic,
    Credentials,
    Decision,
    Fetch,
    Headers,
    Login,
    RefreshToken,
    Refuse,
    Reply,
    UpstreamHead,
)
from waypost.routing.request import Request

PING = Reply(
    200,
    (("Content-Type", "application/json"), ("Docker-Distribution-API-Version", "registry/2.0")),
    b"{}",
)
# How long, in seconds, a token is good that holds no secret; clients ask for a new one by themselves.
ANONYMOUS_SECONDS = 300
_REFUSED = Refuse(401, "UNAUTHORIZED", "The registry behind this address does not let you in with these credentials.")
_NO_CREDENTIALS = Refuse(401, "UNAUTHORIZED", "A login needs a name and a password.")


class PassThrough:
    """The login of one domain.

    base      how users reach the domain
    registry  the login upstream
    find      an image by its public name
    now       seconds since 1970
    """

    def __init__(
        self, base: str, registry: str, find: Callable[[str], Image | None], now: Callable[[], float] = time.time
    ) -> None:
        self._base = base
        self._service = base.partition("://")[2]
        self._registry = registry
        self._find = find
        self._now = now

    def ping(self, request: Request) -> Decision:
        """/v2/: 401 with our challenge; with a login's token what its registry says to it."""
        token = self._shown(request)
        if token is None:
            return self.refusal(None)
        if not token.authorization or token.registry != self._registry:
            return PING
        refused = self.refusal(None)

        def then(head: UpstreamHead) -> Reply | Refuse:
            return refused if head.status in (401, 403) else PING

        return Fetch(url=f"https://{self._registry}/v2/", authorization=token.authorization, then=then)

    def admit(self, request: Request, name: str, image: Image | None) -> Token | Refuse:
        """The token that a request shows for an image, or our challenge.

        Whoever is nobody may ask for anything, and is told upstream what nobody may not read. What is no image here
        is told to whoever shows any token.
        """
        token = self._shown(request)
        if token is None:
            return self.refusal(name)
        if image is None or not token.authorization:
            return token
        if token.opens(image.upstream.registry, image.upstream.repository):
            return token
        return self.refusal(name, "insufficient_scope")

    def refusal(self, name: str | None, error: str | None = None) -> Refuse:
        """401 with our challenge. `error` is that of RFC 6750 section 3.1, if a token was shown."""
        said = f"Pulling {name} needs a login." if name else "This address needs a login."
        return Refuse(401, "UNAUTHORIZED", said, self.challenge(name, error))

    def challenge(self, name: str | None, error: str | None = None) -> Headers:
        parts = [f'realm="{self._base}/token"', f'service="{self._service}"']
        if name:
            parts.append(f'scope="repository:{name}:pull"')
        if error:
            parts.append(f'error="{error}"')
        return (("WWW-Authenticate", f"Bearer {','.join(parts)}"), ("Docker-Distribution-API-Version", "registry/2.0"))

    def token(self, request: Request) -> Decision:
        """/token."""
        if request.method not in ("GET", "POST"):
            return Refuse(405, "UNSUPPORTED", "Tokens are asked for with GET or POST.", (("Allow", "GET, POST"),))
        asked = parse_qsl(request.query or "")
        if request.method == "POST":
            # A password goes on byte by byte as it came, whatever its encoding.
            asked += parse_qsl(request.body.decode("latin-1"), errors="surrogateescape")
        credentials = _credentials(request, dict(asked))
        if isinstance(credentials, Refuse):
            return credentials
        names = [
            name
            for key, value in asked
            if key == "scope"
            for scope in value.split()  # OAuth2 has several in one value; they are separate elsewhere
            if (name := _repository(scope)) is not None
        ]
        if not names:
            return self._check(credentials)
        images = [image for name in names if (image := self._find(name)) is not None]
        # One registry is told of the credentials: that of the first image.
        registry = images[0].upstream.registry if images else ""
        repositories = tuple(
            dict.fromkeys(
                upstream.repository
                for image in images
                for upstream in (image.upstream, *image.others)
                if upstream.registry == registry
            )
        )
        if credentials is None or not images:
            return self._granted(registry, repositories, "", ANONYMOUS_SECONDS)
        return self._ask(registry, repositories, credentials)

    def _check(self, credentials: Credentials | None) -> Decision:
        if credentials is None:
            return self._granted("", (), "", ANONYMOUS_SECONDS)
        return self._ask(self._registry, (), credentials)

    def _ask(self, registry: str, repositories: tuple[str, ...], credentials: Credentials) -> Login:
        def then(granted: tuple[str, float] | None) -> Reply | Refuse:
            return _REFUSED if granted is None else self._granted(registry, repositories, *granted)

        scopes = tuple(f"repository:{repository}:pull" for repository in repositories)
        return Login(registry=registry, scopes=scopes, credentials=credentials, then=then)

    def _granted(self, registry: str, repositories: tuple[str, ...], authorization: str, life: float) -> Reply | Refuse:
        now = self._now()
        sealed = seal(Token(registry, repositories, authorization, int(now + life)))
        if len(sealed) > LONGEST:
            return Refuse(502, "UPSTREAM_MISBEHAVED", f"The upstream {registry} gives a token that is too long.")
        issued = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        # Both names: `token` is the older specification's, `access_token` that of OAuth2. At least 60 seconds, it says.
        body = {"token": sealed, "access_token": sealed, "expires_in": max(60, int(life)), "issued_at": issued}
        headers = (("Content-Type", "application/json"), ("Cache-Control", "no-store"))
        return Reply(200, headers, msgspec.json.encode(body))

    def _shown(self, request: Request) -> Token | None:
        """The one token that a request shows, if it is ours and still good."""
        lines = request.header_all("authorization")
        token = unseal(lines[0]) if len(lines) == 1 else None
        return token if token is not None and token.until > self._now() else None


def _repository(scope: str) -> str | None:
    """`repository:acme/skates:push,pull` → acme/skates, whatever is to be done there: pulls are all that we grant."""
    kind, _, rest = scope.partition(":")
    name = rest.rpartition(":")[0]
    # "repository(plugin)" and the like name a class, which plays no part.
    return name if kind.partition("(")[0] == "repository" and name else None


def _credentials(request: Request, form: dict[str, str]) -> Credentials | Refuse | None:
    if request.method == "POST":
        kind = form.get("grant_type")
        if kind == "refresh_token" and form.get("refresh_token"):
            return RefreshToken(form["refresh_token"])
        if kind == "password" and form.get("username") and form.get("password"):
            return Basic(form["username"], form["password"])
        if kind in ("password", "refresh_token"):
            return _NO_CREDENTIALS
        # RFC 6749 section 5.2.
        return Refuse(400, "UNSUPPORTED", "grant_type is either password or refresh_token.")
    lines = request.header_all("authorization")
    if not lines:
        return None
    return (_basic(lines[0]) if len(lines) == 1 else None) or _NO_CREDENTIALS


def _basic(line: str) -> Basic | None:
    """RFC 7617. The bytes go on as they came, whatever their encoding."""
    scheme, _, encoded = line.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = b64decode(encoded.strip(), validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        return None
    username, colon, password = decoded.partition(":")
    return Basic(username, password) if colon and username else None
