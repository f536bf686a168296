"""Container images: the OCI distribution API under /v2/, spoken by us, answered by the upstream.

We own the conversation: clients know nothing of the upstream's tokens, names on the domain are independent of
names upstream, and several registries may stand behind one domain. Manifests and tag lists pass through us; layers
do not where the upstream redirects to its storage. docs/request-handling.md tells it to users.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from operator import itemgetter
from urllib.parse import quote, unquote

import msgspec
from msgspec import Struct

from waypost.artifacts.distribution import URL_SAFE, Asked, Image
from waypost.artifacts.kind import Clash, Collection, DeclarationError, HostPolicy, Kind, Package, Reach
from waypost.artifacts.login import PING, PassThrough
from waypost.artifacts.reference import (
    ImageName,
    ImageNameError,
    is_digest,
    is_name,
    is_tag,
    parse_registry,
    parse_upstream,
    qualify,
)
from waypost.artifacts.registries import paged
from waypost.artifacts.token import Token
from waypost.routing.decision import Decision, Fetch, Headers, Keep, Refuse
from waypost.routing.pattern import Pattern, PatternError
from waypost.routing.request import Request


class ContainerRow(Struct, frozen=True, array_like=True, tag="container"):
    """One image. `name` is what users pull from the domain, `package` what it is counted as.

    proxy   layers pass through us even where the registry redirects to its storage
    others  (registry, repository) of further upstreams, in order, for when the first is down
    """

    name: str
    registry: str
    repository: str
    package: str
    owner: str | None = None
    proxy: bool = False
    others: tuple[tuple[str, str], ...] = ()


class PatternRow(Struct, frozen=True, array_like=True, tag="container-pattern"):
    """All images whose names match; each is its own repository on `registry`, and its own package.

    repository  where an image is there: {name} is its whole public name, {1} {2} … what each * stands for
    """

    pattern: str
    registry: str
    owner: str | None = None
    repository: str = "{name}"


_READ_ONLY = Refuse(
    405,
    "UNSUPPORTED",
    "Images can be pulled from this address, not pushed to it. Push to the registry behind it.",
    (("Allow", "GET, HEAD"),),
)
_NO_PATH = Refuse(404, "UNSUPPORTED", "The registry API has no such path.")
_NO_CATALOG = Refuse(404, "UNSUPPORTED", "This address has no catalogue.")
# Of the client's headers only these go along, by what is asked.
_PASSED = {
    "manifests": frozenset(("accept",)),
    "blobs": frozenset(("accept", "range", "if-range")),
    "tags": frozenset(("accept",)),
    "referrers": frozenset(("accept",)),
}
_SPECIAL = re.compile(r"[*{}\\]")


class ContainerSite:
    """Everything under /v2 on one host."""

    def __init__(self, rows: Sequence[ContainerRow | PatternRow], policy: HostPolicy) -> None:
        self._base = policy.base_url
        self._secure = policy.base_url.startswith("https:")
        self._images = {
            row.name: _image(row)
            for row in reversed(rows)  # the first one wins
            if isinstance(row, ContainerRow)
        }
        self._patterns = Patterns([row for row in rows if isinstance(row, PatternRow)])
        registry = policy.login_upstream if policy.login == "pass-through" else None
        self._login = PassThrough(self._base, registry, self.find) if registry is not None else None

    def decide(self, request: Request) -> Decision | None:
        path = request.path
        if not path.startswith("/v2") or path[3:4] not in ("", "/"):
            return self._login.token(request) if self._login is not None and path == "/token" else None
        if request.method not in ("GET", "HEAD"):
            return _READ_ONLY
        rest = (unquote(path) if "%" in path else path)[4:]
        if not rest:
            return PING if self._login is None else self._login.ping(request)
        if rest == "_catalog":
            return _NO_CATALOG
        name, verb, reference = _split(rest)
        if verb not in _PASSED:
            return _NO_PATH
        image = self.find(name)
        token = self._login.admit(request, name, image) if self._login is not None and is_name(name) else None
        if isinstance(token, Refuse):
            return token
        if image is None:
            return _unknown_name(name)
        return _check(verb, reference) or self.ask(image, verb, reference, request, token)

    def explain(self, request: Request) -> list[str]:
        if not request.path.startswith("/v2/"):
            return ["Containers answer under /v2/ only."]
        name, _, _ = _split(unquote(request.path)[4:])
        image = self.find(name)
        if image is None:
            return [f"No image called {name!r} is declared on this host, and no pattern matches it."]
        how = "declared by name" if image.published else "matched by a pattern"
        first, *others = (f"{one.repository} on {one.registry}" for one in (image.upstream, *image.others))
        then = f", and while that is down {', then '.join(others)}" if others else ""
        lines = [f"Image {name!r}, {how}: {first}{then}."]
        if self._login is not None:
            lines.append(
                f"Users log in at {image.upstream.registry} for it, and what they are granted decides; without a login "
                "they may pull what everybody may. A login does not fail over to another registry."
            )
        return lines

    def find(self, name: str) -> Image | None:
        return self._images.get(name) or self._patterns.find(name)

    def ask(self, image: Image, verb: str, reference: str, request: Request, token: Token | None) -> Fetch:
        """The same question to the upstream, or to several of them. A login is good for one registry only."""
        passed = _PASSED[verb]
        headers = tuple((name.title(), value) for name, value in request.headers if name in passed)
        authorization = token.authorization or None if token is not None else None
        first, *others = (
            self._question(image, upstream, verb, reference, request, headers, authorization).fetch()
            for upstream in (image.upstream, *image.others)
            if authorization is None or (token is not None and token.opens(upstream.registry, upstream.repository))
        )
        if verb != "manifests" and not others:
            return first
        asked = f"{self._base}/{image.name}"
        return msgspec.structs.replace(
            first,
            others=tuple(others),
            alike=":" in reference,
            keep=_keep(asked, image, reference, headers, authorization is not None) if verb == "manifests" else None,
        )

    def _question(
        self,
        image: Image,
        upstream: ImageName,
        verb: str,
        reference: str,
        request: Request,
        headers: Headers,
        authorization: str | None,
    ) -> Asked:
        path = f"{verb}/{reference}"
        url = upstream.url(path)
        # Lists have no body that a HEAD could stand for: they are fetched, and the gateway leaves it out.
        lists = verb in ("tags", "referrers")
        if request.query and lists:
            query = paged(upstream.registry, request.query) if verb == "tags" else request.query
            url += "?" + quote(query, safe=URL_SAFE, errors="replace")
        return Asked(
            image=image if upstream is image.upstream else msgspec.structs.replace(image, upstream=upstream),
            verb=verb,
            reference=reference,
            ours=f"{self._base}/v2/{image.name}/{path}",
            url=url,
            method="GET" if lists else request.method,
            headers=headers,
            scope=upstream.scope,
            secure=self._secure or request.scheme == "https",
            authorization=authorization,
            # Without an error: docker and containerd read "insufficient_scope" as "no such image".
            challenge=self._login.challenge(image.name) if self._login is not None else (),
        )


def _image(row: ContainerRow) -> Image:
    upstream = ImageName(row.registry, row.repository)
    others = tuple(ImageName(registry, repository) for registry, repository in row.others)
    return Image(row.name, upstream, row.package, row.owner, row.proxy, others, published=True)


def _keep(asked: str, image: Image, reference: str, headers: Headers, private: bool) -> Keep:
    """Manifests may be kept. `headers` are the Accept lines; conditions are ours to judge (routing/condition.py)."""
    accept = ", ".join(value for _, value in headers)
    repository = f"{image.upstream.registry}/{image.upstream.repository}"
    return Keep(f"{asked} {reference}", repository, reference, accept, private)


class Patterns:
    """Finds the pattern that matches a name: more literal text wins, then fewer wildcards, then the earlier
    one.

    Only those are tried that have as many segments as the name and begin with its first segment, or with a
    wildcard.
    """

    def __init__(self, rows: Sequence[PatternRow]) -> None:
        ranked = [(Pattern.parse(row.pattern), row) for row in rows]
        ranked.sort(key=lambda pair: (-pair[0].literal, pair[0].wildcards))
        self._near: dict[tuple[int, str], list[tuple[int, Pattern, PatternRow]]] = {}
        for rank, (pattern, row) in enumerate(ranked):
            first = row.pattern.partition("/")[0]
            key = (row.pattern.count("/"), "" if _SPECIAL.search(first) else first)
            self._near.setdefault(key, []).append((rank, pattern, row))

    def find(self, name: str) -> Image | None:
        if not self._near or not is_name(name):
            return None
        depth = name.count("/")
        found = [
            candidate
            for first in (name.partition("/")[0], "")
            for candidate in islice(self._matching(name, depth, first), 1)
        ]
        if not found:
            return None
        _, row, wildcards = min(found, key=itemgetter(0))
        repository = filled(row.repository, name, wildcards)
        return Image(name, qualify(row.registry, repository), name, row.owner) if is_name(repository) else None

    def _matching(self, name: str, depth: int, first: str) -> Iterator[tuple[int, PatternRow, tuple[str, ...]]]:
        """(rank, row, what its wildcards stand for) of those that match, the best first."""
        for rank, pattern, row in self._near.get((depth, first), ()):
            wildcards = pattern.match(name)
            if wildcards is not None:
                yield rank, row, wildcards


_HOLE = re.compile(r"\{(name|[1-9][0-9]?)\}")


def filled(repository: str, name: str, wildcards: Sequence[str]) -> str:
    """A repository template with its holes filled."""
    return _HOLE.sub(lambda hole: name if hole[1] == "name" else wildcards[int(hole[1]) - 1], repository)


def _split(rest: str) -> tuple[str, str, str]:
    """`NAME/VERB/REFERENCE`, read from the right, since names hold slashes themselves."""
    head, _, reference = rest.rpartition("/")
    name, _, verb = head.rpartition("/")
    return name, verb, reference


def _check(verb: str, reference: str) -> Refuse | None:
    """Whether a reference fits what is asked: a tag or digest, a digest, or the word "list"."""
    if verb == "tags":
        return None if reference == "list" else _NO_PATH
    if verb == "manifests" and ":" not in reference:
        return None if is_tag(reference) else Refuse(404, "TAG_INVALID", f"{_shown(reference)} is not a tag.")
    return None if is_digest(reference) else Refuse(400, "DIGEST_INVALID", f"{_shown(reference)} is not a digest.")


def _unknown_name(name: str) -> Refuse:
    if not is_name(name):
        return Refuse(400, "NAME_INVALID", f"{_shown(name)} is not an image name.")
    return Refuse(404, "NAME_UNKNOWN", f"No image called {name} is published at this address.")


def _shown(text: str) -> str:
    return ascii(text[:100])


def declare(package: Package) -> list[ContainerRow]:
    if not is_name(package.name):
        raise DeclarationError(
            "name", package.name, "an image name: lower-case letters, digits, and . _ - / between them"
        )
    if package.routes:
        raise DeclarationError("routes", package.routes, "no routes: an image has an `upstream`")
    if not package.upstream:
        raise DeclarationError("upstream", package.upstream, "the image that is published, such as ghcr.io/acme/x")
    written = [package.upstream] if isinstance(package.upstream, str) else package.upstream
    upstreams: list[ImageName] = []
    for one in written:
        try:
            upstream = parse_upstream(one)
        except ImageNameError as error:
            raise DeclarationError("upstream", one, f"an image name. {error}") from None
        if upstream in upstreams:
            raise DeclarationError("upstream", one, "each upstream once")
        upstreams.append(upstream)
    first, *rest = upstreams
    others = tuple((one.registry, one.repository) for one in rest)
    name = package.name
    return [ContainerRow(name, first.registry, first.repository, name, package.owner, package.proxy, others)]


def collect(collection: Collection) -> list[PatternRow]:
    """A [[collection]] → its row. Raises DeclarationError."""
    try:
        pattern = Pattern.parse(collection.pattern)
    except PatternError as error:
        raise DeclarationError("pattern", collection.pattern, f"a pattern such as acme/*. {error.sentence}") from None
    registry, slash, template = collection.upstream.partition("/")
    template = template if slash else "{name}"
    try:
        host = parse_registry(registry)
    except ImageNameError as error:
        raise DeclarationError("upstream", collection.upstream, f"a registry such as ghcr.io. {error}") from None
    for hole in _HOLE.findall(template):
        if hole != "name" and int(hole) > pattern.wildcards:
            has = f"{pattern.wildcards} wildcard{'s' * (pattern.wildcards != 1)}"
            raise DeclarationError("upstream", collection.upstream, f"no {{{hole}}}: the pattern has {has}")
    # The same for every name would make one repository look like many packages.
    if not _HOLE.search(template) or not is_name(filled(template, "a", ["a"] * 100)):
        expected = "a registry, or one with a template: ghcr.io/mirror/{name}, ghcr.io/{1}/{2}"
        raise DeclarationError("upstream", collection.upstream, expected)
    return [PatternRow(collection.pattern, host, collection.owner, template)]


def registries(rows: Iterable[Struct]) -> list[str]:
    """The registries that images of these rows lead to, in the order in which they are declared."""
    found: dict[str, None] = {}
    for row in rows:
        if isinstance(row, ContainerRow | PatternRow):
            found[row.registry] = None
        if isinstance(row, ContainerRow):
            found.update(dict.fromkeys(registry for registry, _ in row.others))
    return list(found)


def registry_called(name: str) -> str | None:
    """The host that answers for a registry that people call so ("docker.io"); None if it is no name of one."""
    try:
        return parse_registry(name)
    except ImageNameError:
        return None


def clashes(rows: Sequence[ContainerRow | PatternRow]) -> list[Clash]:
    seen: dict[str, ContainerRow] = {}
    patterns: dict[str, PatternRow] = {}
    found = []
    for row in rows:
        if isinstance(row, PatternRow) and (same := patterns.setdefault(row.pattern, row)) is not row:
            found.append(Clash(same, row, f"the pattern {row.pattern} is declared twice"))
        if isinstance(row, ContainerRow) and (first := seen.setdefault(row.name, row)) is not row:
            found.append(Clash(first, row, f"the image {row.name} is declared twice, and needs a name of its own"))
    return found


def reach(rows: Sequence[ContainerRow | PatternRow]) -> Reach:
    """Registries are asked by us; which storage they hand layers from is theirs to say."""
    return Reach(further=any(isinstance(row, PatternRow) or not row.proxy for row in rows))


KIND = Kind(
    name="container",
    order=10,
    row=ContainerRow | PatternRow,
    site=ContainerSite,
    declare=declare,
    clashes=clashes,
    claims=lambda row: ("/v2",),
    reach=reach,
)
