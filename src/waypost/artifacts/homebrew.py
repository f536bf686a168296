"""Homebrew bottles: plain files, or blobs of a container registry.

brew fetches a tap's bottles from its `root_url`. On a registry (GitHub's, for nearly all of them) it asks for the
manifest of a version, and then for the blob whose digest the formula names. Manifests say what each digest is: that is
written down as they pass by, and a blob is the bottle that its label says, whichever worker is asked for it (C9).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Struct

from waypost.artifacts.container import ContainerSite
from waypost.artifacts.distribution import Image, Step
from waypost.artifacts.kind import Clash, DeclarationError, HostPolicy, Kind, Package, Reach
from waypost.artifacts.reference import ImageName, ImageNameError, is_digest, is_name, parse_registry
from waypost.artifacts.target import look
from waypost.artifacts.token import Token
from waypost.artifacts.tree import OTHER, File, TreeRow, TreeSite, roots, tree_reach
from waypost.routing.decision import Decision, Fact, Fetch, Keep, Listed, Redirect, Refuse, Relay, Reply, UpstreamHead
from waypost.routing.request import Request

# Library/Homebrew/software_spec.rb, Bottle::Filename: NAME-VERSION.TAG.bottle[.REBUILD].tar.gz, "--" in caches.
_BOTTLE = re.compile(
    r"(?P<stem>.+)\.(?P<platform>[a-z][a-z0-9_]*)\.bottle(?:\.(?P<rebuild>[1-9][0-9]*))?\.tar\.gz", re.DOTALL
)
# Library/Homebrew/github_packages.rb, version_rebuild: VERSION.TAG[.REBUILD].
_REFERENCE = re.compile(r"(?P<version>.+)\.(?P<platform>[a-z][a-z0-9_]*)(?:\.(?P<rebuild>[1-9][0-9]*))?", re.DOTALL)
_VERSION = re.compile(r"-(?=[0-9])")
# An index lists a bottle for each platform: a dozen. Of one that lists more, these.
_MOST_BOTTLES = 200
_REGISTRY_API = "/v2/"


class BottleFilesRow(TreeRow, frozen=True, array_like=True, tag="homebrew"):
    """A package whose bottles are files under a root."""


class BottleImagesRow(Struct, frozen=True, array_like=True, tag="homebrew-images"):
    """A package whose bottles are blobs of a registry.

    prefix     of the names that brew asks for: "acme/tap"
    upstreams  (registry, prefix there), first healthy first
    """

    prefix: str
    upstreams: tuple[tuple[str, str], ...]
    package: str
    owner: str | None = None
    proxy: bool = False


class Bottle(Struct, frozen=True):
    """What a manifest says of a blob: the label that it gets. Without platform it is no bottle, but belongs to one."""

    name: str = ""
    version: str = ""
    platform: str = ""
    rebuild: str | None = None


# Plain files


def bottle_of(filename: str) -> Bottle | None:
    """`skates-1.2_1.arm64_sonoma.bottle.2.tar.gz` → skates 1.2_1 for arm64_sonoma, rebuilt twice.

    Nothing says where a name ends: a version is taken to begin behind the first dash that a digit follows, or else
    behind the last dash.
    """
    match = _BOTTLE.fullmatch(filename)
    if match is None:
        return None
    stem = match["stem"]
    name, dash, version = stem.partition("--")
    if not dash:
        digit = _VERSION.search(stem, 1)
        name, dash, version = (stem[: digit.start()], "-", stem[digit.end() :]) if digit else stem.rpartition("-")
    return Bottle(name, version, match["platform"], match["rebuild"]) if name and version else None


def read(path: str) -> File:
    bottle = bottle_of(path.rpartition("/")[2])
    if bottle is None:
        return File("index-fetch") if path.startswith("api/") else OTHER
    return File("binary-download", bottle.name, bottle.version, bottle.platform, same=True)


class BottleFiles(TreeSite):
    """Every path is redirected to the same path upstream, save for those who only look: they are told by us."""

    def __init__(self, rows: Sequence[BottleFilesRow], policy: HostPolicy) -> None:
        super().__init__(rows, policy, read)

    def decide(self, request: Request) -> Decision | None:
        decision = super().decide(request)
        if request.method != "HEAD" or not isinstance(decision, Redirect):
            return decision
        first, *others = (
            look(one.location, request.path, msgspec.structs.replace(one, others=()))
            for one in (decision, *decision.others)
        )
        return msgspec.structs.replace(first, others=tuple(others))


# Blobs of a registry


class _Descriptor(Struct):
    digest: str = ""
    annotations: dict[str, str] | None = None


class _Manifest(Struct):
    manifests: list[_Descriptor] | None = None
    config: _Descriptor | None = None
    annotations: dict[str, str] | None = None


def labels(body: bytes) -> dict[str, str]:
    """Digests of the blobs that a manifest of bottles leads to → what each of them is.

    Annotations as Library/Homebrew/github_packages.rb writes them; whoever pulls bottles as images asks for configs,
    too, and those are nobody's download.
    """
    try:
        manifest = msgspec.json.decode(body, type=_Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    common = manifest.annotations or {}
    listed = [one.annotations or {} for one in (manifest.manifests or ())[:_MOST_BOTTLES]]
    found = {}
    for said in (*({**common, **own} for own in listed), common):
        digest = f"sha256:{said.get('sh.brew.bottle.digest', '')}"
        reference = _REFERENCE.fullmatch(said.get("org.opencontainers.image.ref.name", ""))
        # "skates", or "acme/tap/skates" where the tap is not Homebrew's own; of one bottle also what it is for.
        title = said.get("org.opencontainers.image.title", "").partition(" ")[0].rpartition("/")[2]
        if is_digest(digest) and reference is not None:
            bottle = Bottle(title, reference["version"], reference["platform"], reference["rebuild"])
            found[digest] = msgspec.json.encode(bottle).decode()
    if manifest.config is not None and is_digest(manifest.config.digest):
        found[manifest.config.digest] = msgspec.json.encode(Bottle()).decode()
    return found


class BottleImages(ContainerSite):
    """The registry API for the names under some prefixes."""

    def __init__(self, rows: Sequence[BottleImagesRow], policy: HostPolicy) -> None:
        super().__init__((), policy)
        self._rows = {row.prefix: row for row in rows}

    def find(self, name: str) -> Image | None:
        if not is_name(name):
            return None
        prefix, slash, _ = name.rpartition("/")
        while slash:
            if (row := self._rows.get(prefix)) is not None:
                return _image(row, name)
            prefix, slash, _ = prefix.rpartition("/")
        return None

    def ask(self, image: Image, verb: str, reference: str, request: Request, token: Token | None) -> Fetch:
        fetch = super().ask(image, verb, reference, request, token)
        formula = _formula(image.name)
        if verb == "manifests" and isinstance(fetch.keep, Keep):
            keep = msgspec.structs.replace(fetch.keep, labels=labels)
            return _retold(msgspec.structs.replace(fetch, keep=keep), formula)
        if verb == "blobs":
            repository = f"{image.upstream.registry}/{image.upstream.repository}"
            return _retold(msgspec.structs.replace(fetch, keep=Listed(repository, reference)), formula)
        return fetch

    def explain(self, request: Request) -> list[str]:
        if not request.path.startswith(_REGISTRY_API):
            return [f"Bottles are under {', '.join(_REGISTRY_API + prefix for prefix in self._rows)} only."]
        return super().explain(request)


def _image(row: BottleImagesRow, name: str) -> Image | None:
    below = name[len(row.prefix) :]
    first, *others = (ImageName(registry, f"{prefix}{below}") for registry, prefix in row.upstreams)
    if not all(is_name(one.repository) for one in (first, *others)):
        return None
    return Image(name, first, row.package, row.owner, row.proxy, tuple(others), published=True)


def _formula(name: str) -> str:
    """`homebrew/core/openssl/3` → openssl@3 (github_packages.rb, image_formula_name; of "+" it makes "x")."""
    parts = name.split("/")
    return "@".join(parts[2:] or parts[-1:])


def _retold(fetch: Fetch, formula: str, label: str | None = None) -> Fetch:
    """The same question, with facts about bottles where those about images would be."""

    def then(head: UpstreamHead) -> Step:
        known = label if head.label is None else head.label
        made = fetch.then(head)
        return _retold(made, formula, known) if isinstance(made, Fetch) else _told(made, formula, known)

    return msgspec.structs.replace(
        fetch,
        then=then,
        others=tuple(_retold(other, formula, label) for other in fetch.others),
        instead=None if fetch.instead is None else _told(fetch.instead, formula, label),
    )


_F = TypeVar("_F", bound=Redirect | Reply | Refuse | Relay)


def _told(final: _F, formula: str, label: str | None) -> _F:
    if isinstance(final, Refuse) or not final.facts:
        return final
    facts = (_fact(fact, formula, label) for fact in final.facts)
    return msgspec.structs.replace(final, facts=tuple(fact for fact in facts if fact is not None))


def _fact(fact: Fact, formula: str, label: str | None) -> Fact | None:
    if fact.kind == "manifest-head":
        return None
    if fact.kind == "manifest-fetch":
        return msgspec.structs.replace(fact, kind="index-fetch", artifact=formula, lists=None, platform=None)
    if fact.kind != "blob-fetch":
        return fact
    # A bottle whose manifest went by elsewhere, as when brew has it from before: of no version that we know.
    bottle = Bottle() if label is None else msgspec.json.decode(label, type=Bottle)
    if label is not None and not bottle.platform:
        return fact
    return msgspec.structs.replace(
        fact,
        kind="binary-download",
        artifact=bottle.name or formula,
        version=bottle.version or None,
        platform=bottle.platform or None,
        variables={"rebuild": bottle.rebuild} if bottle.rebuild else None,
    )


# Declarations


def declare(package: Package) -> list[BottleFilesRow] | list[BottleImagesRow]:
    found = roots(package, "https://ghcr.io/v2/acme/tap")
    images = [root for root in found if urlsplit(root).path.startswith(_REGISTRY_API)]
    if not images:
        return [BottleFilesRow(package.name, found, package.owner, package.proxy)]
    if len(images) < len(found):
        raise DeclarationError("upstream", package.upstream, "registries (https://HOST/v2/…) or folders, not both")
    upstreams = tuple(map(_registry, images))
    return [BottleImagesRow(upstreams[0][1], upstreams, package.name, package.owner, package.proxy)]


def _registry(root: str) -> tuple[str, str]:
    parts = urlsplit(root)
    prefix = unquote(parts.path[len(_REGISTRY_API) :])
    try:
        registry = parse_registry(parts.netloc)
    except ImageNameError as error:
        raise DeclarationError("upstream", root, f"a registry. {error}") from None
    if parts.scheme != "https" or not is_name(prefix):
        raise DeclarationError("upstream", root, "the root_url of a tap, such as https://ghcr.io/v2/acme/tap")
    return registry, prefix


def clashes(rows: Sequence[BottleFilesRow | BottleImagesRow]) -> list[Clash]:
    """Taps on registries may share a domain, as brew's HOMEBREW_ARTIFACT_DOMAIN is one for all; files may not."""
    first = rows[0]
    found = []
    seen: dict[str, BottleImagesRow] = {}
    for row in rows:
        if isinstance(row, BottleFilesRow):
            if row is not first:
                found.append(Clash(first, row, _alone(first, row)))
        elif isinstance(first, BottleFilesRow):
            found.append(Clash(first, row, _alone(first, row)))
        elif (same := seen.setdefault(row.prefix, row)) is not row:
            found.append(Clash(same, row, f"{same.package} and {row.package} are both /v2/{row.prefix}"))
    return found


def _alone(one: BottleFilesRow | BottleImagesRow, other: BottleFilesRow | BottleImagesRow) -> str:
    return f"{one.package} and {other.package} need a domain each: bottles that are files take the whole of it"


def site(rows: Sequence[BottleFilesRow | BottleImagesRow], policy: HostPolicy) -> BottleFiles | BottleImages:
    images = [row for row in rows if isinstance(row, BottleImagesRow)]
    return BottleImages(images, policy) if images else BottleFiles(rows, policy)  # type: ignore[arg-type]


def reach(rows: Sequence[BottleFilesRow | BottleImagesRow]) -> Reach:
    """Files are where the upstream is; blobs where its registry keeps them."""
    images = [row for row in rows if isinstance(row, BottleImagesRow) and not row.proxy]
    files = [row for row in rows if isinstance(row, BottleFilesRow)]
    return Reach(tree_reach(files).origins, further=bool(images))


KIND = Kind(
    name="homebrew",
    order=50,
    row=BottleFilesRow | BottleImagesRow,
    site=site,
    declare=declare,
    clashes=clashes,
    root=True,
    reach=reach,
)
