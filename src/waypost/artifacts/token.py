"""Tokens of ours: what a registry let somebody in with, bound to that registry and to the repositories asked for.

A client gets one from /token, and shows it with each request for the image. Nothing of it is kept here, so any worker
can read it, also after a restart. It is not signed: whoever makes one up can put in only what they already have, and
it is sent to the registry that it names, for an image that the configuration leads there, and nowhere else.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable

import msgspec
from msgspec import Struct

_MARK = "waypost1."
# With what surrounds it, it must fit into a client's header and into ours (docs/request-handling.md, Limits).
LONGEST = 24_576


class Token(Struct, frozen=True, array_like=True):
    """`registry` "" and no repositories: it opens nothing, for those who ask for a name that is not there.

    authorization  "Bearer …" or "Basic …" for that registry; "": its bearer is nobody, and so asks as everybody may
    until          seconds since 1970
    """

    registry: str
    repositories: tuple[str, ...]
    authorization: str
    until: int

    def opens(self, registry: str, repository: str) -> bool:
        return self.registry == registry and repository in self.repositories

    def __repr__(self) -> str:
        return f"<Token for {self.registry}>"


def seal(token: Token) -> str:
    return _MARK + urlsafe_b64encode(_encode(token)).decode().rstrip("=")


def unseal(text: str) -> Token | None:
    """The token in an Authorization's value, or None if there is none of ours."""
    scheme, _, sealed = text.partition(" ")
    if scheme.lower() != "bearer" or not sealed.startswith(_MARK) or len(sealed) > LONGEST:
        return None
    body = sealed[len(_MARK) :]
    try:
        token = _decode(urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (ValueError, msgspec.MsgspecError):
        return None
    # Somebody may have put a line end into it, to say more upstream than an Authorization.
    return token if token.authorization.isascii() and token.authorization.isprintable() else None


_encode = msgspec.msgpack.Encoder().encode
_decode: Callable[[bytes], Token] = msgspec.msgpack.Decoder(Token).decode
