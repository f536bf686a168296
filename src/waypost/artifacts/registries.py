"""Registries that have a name: their hosts, their web pages, and how they let people in.

Any other registry works by its host alone. This table is what people paste and what documents say of each; how
registries differ on the wire is not in it, since Waypost asks all of them the same way.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from urllib.parse import unquote, urlsplit

from msgspec import Struct


class Page(Struct, frozen=True):
    """A web page that is about one image.

    address  a regular expression for its host and path
    image    what users pull, made of the groups in `address`
    """

    address: str
    image: str


class Registry(Struct, frozen=True):
    """One registry, or all of one kind.

    label    as it calls itself
    hosts    the hosts that it answers under; * stands for any characters
    called   hosts that people write for it, and that do not speak the API
    asked    the one host that does, where there are several names
    pages    its web pages; the first that fits decides
    shown    regular expressions for all of its web that is about images, so that a page of no image is told apart
             from a file; the beginning of an address is enough
    login    bearer: a token from its token endpoint, for user and password if it is to be a user's; basic: user
             and password, in each request
    account  who logs in
    listed   how many tags it may be asked for at once; it refuses to be asked for more, where others give fewer
    """

    label: str
    hosts: tuple[str, ...]
    pages: tuple[Page, ...]
    shown: tuple[str, ...]
    login: str
    account: str
    called: tuple[str, ...] = ()
    asked: str | None = None
    listed: int | None = None


_IMAGE = "(?P<image>[^/]+)"
_NAME = "(?P<name>[^/]+(?:/[^/]+)*)"
_OWNED = "(?P<name>[^/]+/[^/]+)"
_MORE = "(?:/.*)?"  # tabs of a page
_GITHUB = r"github\.com/(?:orgs/|users/)?"
_GOOGLE = r"console\.cloud\.google\.com"
_AWS = r"(?P<region>[a-z0-9-]+)\.console\.aws\.amazon\.com/ecr/repositories/private/(?P<account>[0-9]{12})"

REGISTRIES: tuple[Registry, ...] = (
    Registry(
        label="Docker Hub",
        hosts=("docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"),
        called=("hub.docker.com",),
        asked="registry-1.docker.io",
        pages=(
            Page(rf"(?:registry\.)?hub\.docker\.com/r/{_OWNED}{_MORE}", "{name}"),
            Page(rf"(?:registry\.)?hub\.docker\.com/_/{_IMAGE}{_MORE}", "{image}"),
            Page(rf"hub\.docker\.com/repository/docker/{_OWNED}{_MORE}", "{name}"),
            Page(rf"hub\.docker\.com/layers/library/{_IMAGE}/.+", "{image}"),
            Page(rf"hub\.docker\.com/layers/{_OWNED}/.+", "{name}"),
            Page(rf"docker\.io/(?!v[12]/){_NAME}", "{name}"),
        ),
        shown=(r"(?:registry\.)?hub\.docker\.com/", r"(?:index\.|registry-1\.)?docker\.io/"),
        login="bearer",
        account="user and access token",
    ),
    Registry(
        label="GitHub Container Registry",
        hosts=("ghcr.io",),
        pages=(
            Page(rf"github\.com/(?P<owner>[^/]+)/[^/]+/pkgs/container/{_IMAGE}{_MORE}", "ghcr.io/{owner}/{image}"),
            Page(rf"{_GITHUB}(?P<owner>[^/]+)/packages/container/package/{_IMAGE}{_MORE}", "ghcr.io/{owner}/{image}"),
            Page(rf"{_GITHUB}(?P<owner>[^/]+)/packages/container/{_IMAGE}{_MORE}", "ghcr.io/{owner}/{image}"),
            Page(rf"ghcr\.io/(?!v2/){_NAME}", "ghcr.io/{name}"),
        ),
        shown=(r"ghcr\.io/", rf"{_GITHUB}[^/]+/packages(?:/|$)", r"github\.com/[^/]+/[^/]+/(?:pkgs|packages)(?:/|$)"),
        login="bearer",
        account="user and personal access token with `read:packages`",
    ),
    Registry(
        label="Google Artifact Registry",
        hosts=("*-docker.pkg.dev", "gcr.io", "*.gcr.io"),
        pages=(
            Page(
                rf"{_GOOGLE}/artifacts/docker/(?P<project>[^/]+)/(?P<place>[^/]+)/(?P<set>[^/]+)/{_IMAGE}{_MORE}",
                "{place}-docker.pkg.dev/{project}/{set}/{image}",
            ),
            Page(rf"{_GOOGLE}/gcr/images/(?P<project>[^/]+)/(?i:global)/{_NAME}", "gcr.io/{project}/{name}"),
            Page(
                rf"{_GOOGLE}/gcr/images/(?P<project>[^/]+)/(?P<place>(?i:us|eu|asia))/{_NAME}",
                "{place}.gcr.io/{project}/{name}",
            ),
            Page(rf"(?P<host>[a-z0-9-]+-docker\.pkg\.dev|(?:[a-z]+\.)?gcr\.io)/(?!v2/){_NAME}", "{host}/{name}"),
        ),
        shown=(rf"{_GOOGLE}/(?:artifacts|gcr)(?:/|$)", r"[a-z0-9-]+-docker\.pkg\.dev/", r"(?:[a-z]+\.)?gcr\.io/"),
        login="bearer",
        account="`_json_key` and a service account's key, or `oauth2accesstoken` and a token",
    ),
    Registry(
        label="Quay",
        hosts=("quay.io",),
        pages=(
            Page(rf"quay\.io/repository/{_OWNED}{_MORE}", "quay.io/{name}"),
            Page(rf"quay\.io/(?!v[12]/|repository/|organization/|user/|search/){_OWNED}", "quay.io/{name}"),
        ),
        shown=(r"quay\.io/",),
        login="bearer",
        account="robot account and its token",
    ),
    Registry(
        label="Amazon ECR Public",
        hosts=("public.ecr.aws",),
        pages=(
            Page(rf"gallery\.ecr\.aws/{_NAME}", "public.ecr.aws/{name}"),
            Page(rf"public\.ecr\.aws/(?!v2/|token/){_NAME}", "public.ecr.aws/{name}"),
        ),
        shown=(r"gallery\.ecr\.aws/", r"public\.ecr\.aws/"),
        login="bearer",
        account="none needed: all of it is public",
        listed=1000,
    ),
    Registry(
        label="Amazon ECR",
        hosts=("*.dkr.ecr.*.amazonaws.com", "*.dkr.ecr.*.amazonaws.com.cn"),
        pages=(
            Page(rf"{_AWS}/(?P<name>.+?)(?:/_/.*)?", "{account}.dkr.ecr.{region}.amazonaws.com/{name}"),
            Page(rf"(?P<host>[0-9]+\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?)/(?!v2/){_NAME}", "{host}/{name}"),
        ),
        shown=(r"(?:[a-z0-9-]+\.)?console\.aws\.amazon\.com/ecr(?:/|$)", r"[0-9]+\.dkr\.ecr\."),
        login="basic",
        account="`AWS` and a password that lasts 12 hours",
        listed=1000,
    ),
    Registry(
        label="Azure Container Registry",
        hosts=("*.azurecr.io", "*.azurecr.cn", "*.azurecr.us"),
        pages=(Page(rf"(?P<host>[a-z0-9-]+\.azurecr\.(?:io|cn|us))/(?!v2/|oauth2/){_NAME}", "{host}/{name}"),),
        shown=(r"[a-z0-9-]+\.azurecr\.(?:io|cn|us)/",),
        login="bearer",
        account="service principal, or a token of the registry, and its password",
    ),
    Registry(
        label="GitLab",
        hosts=("registry.gitlab.com",),
        pages=(Page(rf"registry\.gitlab\.com/(?!v2/){_NAME}", "registry.gitlab.com/{name}"),),
        # Its pages name an image by a number, which says nothing here.
        shown=(r"registry\.gitlab\.com/", r"gitlab\.com/.+/container_registry(?:/|$)"),
        login="bearer",
        account="user or deploy token, with `read_registry`",
    ),
)


def find(host: str) -> Registry | None:
    """Which registry answers under a host (lower case); None: one without a row."""
    return next((one for one in REGISTRIES if any(fnmatchcase(host, pattern) for pattern in one.hosts)), None)


def asked(host: str) -> str:
    """The host to ask for what people call `host`."""
    registry = find(host) or next((one for one in REGISTRIES if host in one.called), None)
    return (registry.asked if registry else None) or host


_HOW_MANY = re.compile(r"(?<![^&])n=0*([0-9]+)(?![^&])")


def paged(host: str, query: str) -> str:
    """The query of a list of tags, with no greater `n` than the registry at `host` bears; Link leads to the rest."""
    registry = find(host)
    most = registry.listed if registry else None
    if most is None:
        return query
    longest = len(str(most))
    return _HOW_MANY.sub(
        lambda found: f"n={most}" if len(found[1]) > longest or int(found[1]) > most else found[0], query
    )


def shown_at(url: str) -> Registry | None:
    """Whose page of images this is, whether or not it names one."""
    address = _address(url)
    return next((one for one in REGISTRIES if any(re.match(begin, address) for begin in one.shown)), None)


def image_at(url: str) -> str | None:
    """The image that a web page is about, as `docker pull` takes it; None if it is about none that we can tell.

    A tag in the page's query is dropped; one at its end, as in https://quay.io/acme/x:1.0, stays.
    """
    address = _address(url)
    for registry in REGISTRIES:
        for page in registry.pages:
            if found := re.fullmatch(page.address, address):
                return page.image.format(**{name: _plain(text) for name, text in found.groupdict().items()})
    return None


def _plain(text: str) -> str:
    """Part of a path as an image has it: some consoles escape slashes twice, and show capitals that no name has."""
    return unquote(unquote(text)).lower()


def _address(url: str) -> str:
    """Host and path, without query, fragment and a slash at the end; "" if it is no page that anybody can see."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or "@" in parts.netloc or port not in (None, 443):
        return ""
    return f"{host}{parts.path.rstrip('/') or '/'}"
