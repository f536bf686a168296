"""Questions to registries, and what becomes of their answers: the OCI distribution API from its other side.

A question keeps its public name, so that whatever a registry says is told to the client in that name.
"""

from __future__ import annotations

import re
from functools import partial
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit

import msgspec
from msgspec import Struct

from waypost.artifacts.oci import (
    SIGNED_SCHEMA_1,
    Summary,
    digest_matches,
    digest_of,
    is_object,
    platform_of_config,
    summarise,
)
from waypost.artifacts.reference import ImageName, is_digest
from waypost.routing.decision import Fact, Fetch, Headers, Redirect, Refuse, Relay, Reply, UpstreamHead

# OCI distribution spec 1.1: manifests above 4 MiB may be refused, and registries do. Lists likewise.
LARGEST_MANIFEST = 4 * 1024 * 1024
# Configs hold an image's history and environment: some kilobytes, rarely more.
LARGEST_CONFIG = 1024 * 1024

_REDIRECTS = frozenset((301, 302, 303, 307, 308))
# What of an upstream's answer reaches the client.
_BLOB_HEADERS = {
    name.lower(): name
    for name in ("Content-Length", "Content-Range", "Content-Type", "Accept-Ranges", "ETag", "Last-Modified")
}
_HEAD_HEADERS = {name: ours for name, ours in _BLOB_HEADERS.items() if name != "etag"}
_LIST_HEADERS = {"content-type": "Content-Type", "oci-filters-applied": "OCI-Filters-Applied"}
# On storage that is a registry itself the client would need a token: such a Location is ours to follow.
_REGISTRY_PATH = re.compile(r"/v2/(.+)/(?:manifests|blobs|tags|referrers)/[^/]+")
_LINK_TARGET = re.compile(r"<([^>]*)>")
URL_SAFE = "%/:?@!$&'()*+,;=-._~[]"  # RFC 3986 section 2, and "%": what is encoded stays encoded

Step = Redirect | Reply | Refuse | Relay | Fetch


class Image(Struct, frozen=True):
    """What a request is about: the public name, and where it leads.

    published  by name, and not only as one of those that a pattern matches
    """

    name: str
    upstream: ImageName
    package: str
    owner: str | None
    proxy: bool = False
    others: tuple[ImageName, ...] = ()
    published: bool = False

    def fact(
        self, kind: str, summary: Summary | None = None, tag: str | None = None, digest: str | None = None
    ) -> Fact:
        return Fact(
            kind=kind,
            package=self.package,
            owner=self.owner,
            tag=tag,
            digest=digest,
            artifact=summary.artifact if summary else None,
            lists=summary.lists if summary else None,
            upstream=self.upstream.registry,
        )


class Asked(NamedTuple):
    """One question to an upstream. When it redirects us, `url` changes, and what is good for one host stays there.

    verb           manifests, blobs, tags or referrers
    ours           the same question, asked of us
    scope          of the token, if the upstream wants one
    secure         the client reached us by https
    authorization  what the client was granted upstream; None: we ask as everybody may
    challenge      how the client is told that it needs a login; none where there is no login
    """

    image: Image
    verb: str
    reference: str
    ours: str
    url: str
    method: str
    headers: Headers
    scope: str | None
    secure: bool
    authorization: str | None = None
    challenge: Headers = ()

    @property
    def is_published(self) -> bool:
        """Where people log in, only what they may read themselves is theirs."""
        return self.image.published and not self.challenge

    def has(self, name: str) -> bool:
        """Whether we send this header; `name` in lower case."""
        return any(key.lower() == name for key, _ in self.headers)

    def fetch(self) -> Fetch:
        buffered = self.method == "GET" and self.verb != "blobs"
        return Fetch(
            url=self.url,
            method=self.method,
            headers=self.headers,
            scope=self.scope,
            authorization=self.authorization,
            published=self.is_published,
            buffer=LARGEST_MANIFEST if buffered else 0,
            then=partial(_answer, self),
        )

    def moved(self, location: str) -> Asked:
        """The same question where an upstream redirects us. A login stays with the host that it was granted by."""
        at_home = urlsplit(location).netloc == urlsplit(self.url).netloc
        repository = _REGISTRY_PATH.fullmatch(urlsplit(location).path)
        # A token is good for the host that it was asked for: elsewhere a new one, for the name used there.
        scope = f"repository:{repository[1]}:pull" if repository else self.scope if at_home else None
        return self._replace(url=location, scope=scope, authorization=self.authorization if at_home else None)


def _answer(asked: Asked, head: UpstreamHead) -> Step:
    if head.status in _REDIRECTS:
        return _redirected(asked, head)
    # RFC 9110 section 15.3.7: a part answers only who asked for one.
    if head.status == 200 or (head.status == 206 and asked.has("range")):
        # Digests are those of the bytes without any coding, and we ask for none.
        if (head.header("content-encoding") or "identity").lower() != "identity":
            return _misbehaved(asked, "answers in a content coding that nobody asked for")
        return _ANSWERS[asked.verb](asked, head)
    return _failed(asked, head)


def _redirected(asked: Asked, head: UpstreamHead) -> Step:
    """Layers: the client goes to the storage itself. All else, and what needs a token, is ours to follow."""
    location = _location(asked, head)
    if location is None:
        return _misbehaved(asked, "redirects to nowhere")
    parts = urlsplit(location)
    at_home = parts.netloc == urlsplit(asked.url).netloc
    repository = _REGISTRY_PATH.fullmatch(parts.path)
    if at_home:
        # A registry behind a proxy often forgets that it is reached by https. We do not.
        location = parts._replace(scheme="https").geturl()
    elif asked.verb == "blobs" and not repository and _may_follow(asked, parts.scheme):
        return Redirect(location, _blob_facts(asked))
    return asked.moved(location).fetch()


def _may_follow(asked: Asked, scheme: str) -> bool:
    """Whether the client may be sent there: unless it is to see us alone, and never from https to http."""
    return not asked.image.proxy and (scheme == "https" or not asked.secure)


def _location(asked: Asked, head: UpstreamHead) -> str | None:
    """The absolute http(s) URL of a redirect, in visible ASCII, without userinfo and fragment; or None."""
    given = head.header("location")
    if not given:
        return None
    try:
        # Header values are latin-1: these are the bytes that came, mostly UTF-8 where they are not ASCII.
        parts = urlsplit(urljoin(asked.url, quote(given.encode("latin-1"), safe=URL_SAFE + "#")))
        port = parts.port  # raises when it is no number
    except ValueError:
        return None
    # An escape in a host is read by some clients and not by others, so nobody can say where it leads.
    strange = "@" in parts.netloc or "%" in parts.netloc
    if parts.scheme not in ("http", "https") or not parts.hostname or strange or port == 0:
        return None
    default = ":443" if parts.scheme == "https" else ":80"
    return parts._replace(netloc=parts.netloc.lower().removesuffix(default), fragment="").geturl()


def _manifest(asked: Asked, head: UpstreamHead) -> Step:
    image, reference = asked.image, asked.reference
    tag = None if ":" in reference else reference
    told = head.header("docker-content-digest")
    if told is not None and not is_digest(told):
        return _misbehaved(asked, "names a digest that is none")
    if asked.method == "HEAD":
        digest = told or (None if tag else reference)
        headers = (*_kept(head, _HEAD_HEADERS), *(_named(digest) if digest else ()))
        return Reply(200, headers, b"", (image.fact("manifest-head", None, tag, digest),))
    content_type = head.header("content-type") or ""
    # Clients verify too. We must, since what we serve may be kept, and what we record must be true.
    if content_type.partition(";")[0] != SIGNED_SCHEMA_1:
        for digest in (told, None if tag else reference):
            if digest is not None and not digest_matches(digest, head.body):
                return _misbehaved(asked, f"answers with bytes that are not {digest}")
    # What a captive portal or a broken proxy answers with 200 is no manifest, and no download.
    if tag is not None and not is_object(head.body):
        return _misbehaved(asked, "answers with a manifest that is none")
    digest = reference if tag is None else told or digest_of(head.body)
    summary = summarise(head.body, content_type, tag)
    headers = (
        ("Content-Type", content_type or summary.media_type or "application/json"),
        *_named(digest),
    )
    fact = image.fact("manifest-fetch", summary, tag, digest)
    if head.platform:
        fact = msgspec.structs.replace(fact, platform=head.platform)
    reply = Reply(200, headers, head.body, (fact,))
    if summary.config is None or head.platform is not None or not is_digest(summary.config):
        return reply
    return _config(asked._replace(url=image.upstream.url(f"blobs/{summary.config}")), reply)


def _named(digest: str) -> Headers:
    """What a manifest is called. Its ETag is ours, since clients may compare it with what another upstream sent."""
    return (("Docker-Content-Digest", digest), ("ETag", f'"{digest}"'))


def _config(asked: Asked, reply: Reply) -> Fetch:
    """Asks at `asked.url` for an image's config, which names its platform (C8).

    The manifest is served whatever comes of it. Docker Hub and others count manifests, not blobs; and what is kept
    is asked for once.
    """
    return Fetch(
        url=asked.url,
        scope=asked.scope,
        authorization=asked.authorization,
        published=asked.is_published,
        buffer=LARGEST_CONFIG,
        then=partial(_with_platform, asked, reply),
        instead=reply,
    )


def _with_platform(asked: Asked, reply: Reply, head: UpstreamHead) -> Step:
    if head.status in _REDIRECTS:
        location = _location(asked, head)
        if location is None:
            return reply
        return _config(asked.moved(location), reply)
    platform = platform_of_config(head.body) if head.status == 200 else ""
    (fact,) = reply.facts
    return msgspec.structs.replace(reply, facts=(msgspec.structs.replace(fact, platform=platform or None),))


def _blob(asked: Asked, head: UpstreamHead) -> Step:
    headers = (("Docker-Content-Digest", asked.reference), *_kept(head, _BLOB_HEADERS))
    if asked.method == "HEAD":
        return Reply(head.status, headers)
    return Relay(head.status, headers, _blob_facts(asked))


def _blob_facts(asked: Asked) -> tuple[Fact, ...]:
    return (asked.image.fact("blob-fetch", digest=asked.reference),) if asked.method == "GET" else ()


def _tags(asked: Asked, head: UpstreamHead) -> Step:
    try:
        listed = msgspec.json.decode(head.body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        return _misbehaved(asked, "answers with a tag list that is none")
    body = msgspec.json.encode({**listed, "name": asked.image.name})
    return Reply(200, (*_kept(head, _LIST_HEADERS), *_links(asked, head)), body)


def _referrers(asked: Asked, head: UpstreamHead) -> Step:
    if not is_object(head.body):
        return _misbehaved(asked, "answers with a list of referrers that is none")
    return Reply(200, (*_kept(head, _LIST_HEADERS), *_links(asked, head)), head.body)


_ANSWERS = {"manifests": _manifest, "blobs": _blob, "tags": _tags, "referrers": _referrers}


def _links(asked: Asked, head: UpstreamHead) -> Headers:
    return tuple(("Link", _ours(value, asked.ours)) for name, value in head.headers if name == "link")


def _ours(link: str, url: str) -> str:
    """RFC 8288: the targets of a Link header, led to us; their query says where to go on."""

    def target(found: re.Match[str]) -> str:
        query = found[1].partition("?")[2]
        return f"<{url}?{query}>" if query else f"<{url}>"

    return _LINK_TARGET.sub(target, link)


# What an upstream's status becomes: (status, code, what is said). The client knows the public name only. Where
# nobody logs in it gets no challenge: a token of theirs would not help.
_FAILURES = {
    401: (401, "UNAUTHORIZED", "is not public at its registry"),
    403: (403, "DENIED", "is not public at its registry"),
    404: (404, "", "is not known to its registry"),
    429: (429, "TOOMANYREQUESTS", "cannot be served now: its registry limits how often it is asked"),
    416: (416, "SIZE_INVALID", "does not have the range that was asked for"),
}
_UNKNOWN = {
    "manifests": "MANIFEST_UNKNOWN",
    "blobs": "BLOB_UNKNOWN",
    "tags": "NAME_UNKNOWN",
    "referrers": "NAME_UNKNOWN",
}


def _failed(asked: Asked, head: UpstreamHead) -> Step:
    if head.status not in _FAILURES:
        return _misbehaved(asked, f"answers {head.status}")
    status, code, why = _FAILURES[head.status]
    headers = _kept(head, {"retry-after": "Retry-After", "content-range": "Content-Range"})
    name = asked.image.name
    if asked.verb != "tags":
        name += f"{'@' if ':' in asked.reference else ':'}{asked.reference}"
    # To whoever has not logged in yet, Google says 403 where others say 401. A login may help against both.
    if asked.challenge and (status == 401 or (status == 403 and asked.authorization is None)):
        may_not = "may not be read with this login" if asked.authorization else "needs a login"
        return Refuse(401, "UNAUTHORIZED", f"{name} {may_not}.", asked.challenge)
    if asked.authorization and status == 403:
        why = "may not be read with this login"
    said = _said(head.body) if status == 404 else ""
    return Refuse(status, code or _UNKNOWN[asked.verb], f"{name} {why}{said}.", headers)


class _Error(Struct):
    message: str = ""


class _Errors(Struct):
    errors: list[_Error] = []


def _said(body: bytes) -> str:
    """What the registry itself says of an error, if that is short and plain: it may know more than "unknown"."""
    try:
        errors = msgspec.json.decode(body, type=_Errors).errors
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    message = errors[0].message if errors else ""
    return f" ({message})" if 0 < len(message) <= 200 and message.isascii() and message.isprintable() else ""


def _misbehaved(asked: Asked, how: str) -> Refuse:
    return Refuse(502, "UPSTREAM_MISBEHAVED", f"The upstream {urlsplit(asked.url).netloc} {how}.")


def _kept(head: UpstreamHead, names: dict[str, str]) -> Headers:
    return tuple((names[name], value) for name, value in head.headers if name in names)
