"""What a site decides about a request: four kinds of answer, and the facts to record if it turns out well.

A decision is data. The gateway carries it out; tests and `waypost explain` only read it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct

Headers: TypeAlias = tuple[tuple[str, str], ...]


class Fact(Struct, frozen=True, kw_only=True):
    """What may be counted about an answer. Whether it counts is not decided here (docs/what-we-count.md).

    kind       binary-download, manifest-fetch, manifest-head, blob-fetch, index-fetch, pixel-fetch, telemetry
    package    its name, or a manifest's package-id where it has no name
    version    as the maintainer's route names it; a container's tag is in `tag`, its digest in `digest`
    lists      of an image index: child digest → platform ("linux/arm64/v8"; "" if the index names none)
    variables  every template variable, percent-decoded, and every query or body variable
    artifact   what was fetched, where that is not the package itself: image, index, signature, sbom …
    upstream   the host that the client was sent to, or that we fetched from
    """

    kind: str
    package: str
    owner: str | None = None
    version: str | None = None
    tag: str | None = None
    digest: str | None = None
    platform: str | None = None
    artifact: str | None = None
    variables: dict[str, str] | None = None
    upstream: str | None = None
    lists: dict[str, str] | None = None


class Redirect(Struct, frozen=True):
    """Send the client elsewhere. `location` is absolute, ASCII, and its authority came from configuration.

    others  the same, at other upstreams, in order, for when this one is down
    pin     where upstreams may differ for a while (indexes of mirrors): all that share a pin are sent to one of them,
            whoever asks. None: any that is up will do.
    root    a URL of the same upstream, from configuration alone, that tells whether it is up; None: its host's root
    """

    location: str
    facts: tuple[Fact, ...] = ()
    status: int = 307
    headers: Headers = ()
    others: tuple[Redirect, ...] = ()
    pin: str | None = None
    root: str | None = None


class Reply(Struct, frozen=True):
    """Answer ourselves. The gateway adds Content-Length and leaves the body out for HEAD."""

    status: int
    headers: Headers = ()
    body: bytes = b""
    facts: tuple[Fact, ...] = ()


class Refuse(Struct, frozen=True):
    """Answer with an error; never recorded. Rendered as JSON in the registries' own format, everywhere."""

    status: int
    code: str
    message: str
    headers: Headers = ()


class Keep(Struct, frozen=True):
    """That an answer may be kept: it is a manifest.

    asked       the question as clients put it; who asks the same at the same time shares an answer
    repository  "ghcr.io/acme/x", of the first upstream: what is kept for one repository is not given out for another
    reference   a tag, or a digest
    accept      the media types that were asked for, on one line
    private     whoever asks must be let in by the upstream at that moment: no answer is shared, and none is stale
    labels      pure: a manifest → digests of blobs that it leads to, and what it says of each (Listed)
    """

    asked: str
    repository: str
    reference: str
    accept: str = ""
    private: bool = False
    labels: Callable[[bytes], dict[str, str]] | None = None


class Listed(Struct, frozen=True):
    """That what is asked for is a blob, and that a manifest may have said what it is: `then` is given its label.

    repository, digest  as in Keep
    """

    repository: str
    digest: str


class Page(Struct, frozen=True):
    """That an answer may be kept: it is an index, which changes now and then, and is the same for all who ask.

    asked    what the kept answer depends on: what was asked for, and how users reach us
    facts    to record whenever it is given out; the answer itself has none
    seconds  for which it is believed without asking again
    failure  the status if no upstream can be asked and nothing is kept; 0: as for every Fetch
    choose   pure: what is kept → the answer, where that is one of several forms of it, or says where one of its files
             is; a Fetch for a file that passes through us. A refusal with 404 says that a newer index may have it.
             None: what is kept is the answer.
    form     what `choose` depends on besides; what it made is remembered under this name. "": it is made each time.
    quick    `choose` takes no time worth speaking of, however large the index is
    """

    asked: str
    facts: tuple[Fact, ...] = ()
    seconds: float = 60.0
    failure: int = 0
    choose: Callable[[Reply], Redirect | Reply | Refuse | Fetch] | None = None
    form: str = ""
    quick: bool = False


class Fetch(Struct, frozen=True, kw_only=True):
    """Ask an upstream, then decide again with what it answered.

    url      absolute; its authority came from configuration.
    headers  what to send, chosen by the site; never the client's Authorization.
    scope    the token scope to ask for if the upstream challenges ("repository:acme/x:pull"), or None.
    authorization
             what the client itself was granted at this upstream ("Bearer …"). It is sent as it is, to the host of
             `url` and no other, and neither an anonymous token nor an account of ours takes its place.
    published
             by name, so that the operator's own account may be used even where its registry lets nobody else in.
             Else it is used only for what anybody may read.
    buffer   how many body bytes `then` needs to see before it decides; 0: it decides on the head alone.
    then     pure: (status, headers with lower-case names, body or b"") → a final decision, or another Fetch when
             the upstream redirects to where only we should go. The gateway bounds how often.
             It is given only what arrived; the gateway turns failures to reach the upstream into 502/504.
    others   the same question to other upstreams, in order, for when this one is down
    alike    content-addressed: whoever has it has the same, so that one that lacks it is passed over, too
    pin      as of a Redirect: the one that all are sent to is asked, and no other
    keep     whether and how the answer may be kept, or what is kept may help to answer; None: not at all
    instead  what to decide if this cannot be had, for questions whose answer is welcome but not needed. They are
             given less time, too.
    """

    url: str
    then: Callable[[UpstreamHead], Redirect | Reply | Refuse | Relay | Fetch]
    method: str = "GET"
    headers: Headers = ()
    scope: str | None = None
    authorization: str | None = None
    published: bool = False
    buffer: int = 0
    others: tuple[Fetch, ...] = ()
    alike: bool = False
    pin: str | None = None
    keep: Keep | Page | Listed | None = None
    instead: Reply | Redirect | None = None


class UpstreamHead(Struct, frozen=True):
    """What an upstream answered, before its body is passed on. Header names are lower case.

    platform  of a manifest that was kept: what is known of its image's platform. None: nobody has looked;
              "": somebody has, in vain.
    label     of a blob: what a kept manifest says of it (Keep.labels); None: none of them does
    """

    status: int
    headers: Headers
    body: bytes = b""
    platform: str | None = None
    label: str | None = None

    def header(self, name: str) -> str | None:
        for key, value in self.headers:
            if key == name:
                return value
        return None


class Relay(Struct, frozen=True):
    """Stream the upstream's body through, with these headers. Only a Fetch may end in one."""

    status: int
    headers: Headers = ()
    facts: tuple[Fact, ...] = ()


class Basic(Struct, frozen=True):
    """A name and a password. Neither is in its repr: credentials reach no log and no traceback."""

    username: str
    password: str

    def header(self) -> str:
        """RFC 7617, in UTF-8."""
        return "Basic " + b64encode(f"{self.username}:{self.password}".encode("utf-8", "surrogateescape")).decode()

    def __repr__(self) -> str:
        return "<Basic>"


class RefreshToken(Struct, frozen=True):
    """What a registry gave its user instead of keeping a password (OAuth2 token authentication). Not in its repr."""

    token: str

    def __repr__(self) -> str:
        return "<RefreshToken>"


Credentials: TypeAlias = Basic | RefreshToken


class Login(Struct, frozen=True, kw_only=True):
    """Ask one registry whether it lets a client in, with the client's own credentials. Nobody else is told of them.

    registry  the host that answers under /v2/
    scopes    of the token that is wanted, in that registry's names; none: the credentials are only checked
    then      pure: ("Bearer …" or "Basic …" for that registry, or "" if it asks nobody who they are; for how many
              seconds), or None if it does not let them in → the answer
    """

    registry: str
    scopes: tuple[str, ...]
    credentials: Credentials
    then: Callable[[tuple[str, float] | None], Reply | Refuse]


Decision: TypeAlias = Redirect | Reply | Refuse | Fetch | Login
Final: TypeAlias = Redirect | Reply | Refuse | Relay
