"""How registries that have a name behave, in the points where they differ.

From their documentation, and from answers of theirs that people reported where that says nothing. What is not known
of one is as the Distribution project's own registry has it.
"""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass

Refusal = tuple[int, str, str]  # status, code, message

REQUIRED = (401, "UNAUTHORIZED", "authentication required")
NO_ACCESS = (401, "UNAUTHORIZED", "access to the requested resource is not authorized")
NAME_UNKNOWN = (404, "NAME_UNKNOWN", "repository name not known to registry")


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How one registry behaves.

    label       as it calls itself
    host        under which it answers; `written` is how people name a repository there
    realm       of its Bearer challenge; "": it challenges with Basic, and has no public images
    service     as the challenge names it
    scope       as the challenge names it, with {name}; "" if it names none
    open        public images are served without any token
    grant       names of the fields in the token endpoint's JSON
    posts       the token endpoint takes the form of OAuth 2, too
    ungranted   what the token endpoint says to who may not pull; None: it gives a token that is good for nothing
    wrong       what is said to a wrong password
    stale       what is said to a token that is no longer good; None: 401 with a challenge
    denied      what the registry says to a token that is not good for this repository
    moved       the status that sends clients to the storage; 0: it serves layers itself
    at_home     the storage is at a path of the registry's own host, and Location is relative
    page        tags on a page when nobody says how many; most: what `n` may be at most
    absolute    Link names a whole URL
    opaque      Link's cursor is no tag
    lists_as    Content-Type of tag lists
    metered     manifest GETs (not HEADs) are counted, and answers tell what is left
    limited     what is said when there is nothing left
    user        of the account that private images need
    """

    label: str
    host: str
    written: str
    realm: str
    service: str
    scope: str = "repository:{name}:pull"
    open: bool = False
    grant: tuple[str, ...] = ("token",)
    posts: bool = False
    ungranted: Refusal | None = None
    wrong: Refusal = REQUIRED
    stale: Refusal | None = None
    denied: Refusal = REQUIRED
    unknown: Refusal = NAME_UNKNOWN
    moved: int = 307
    at_home: bool = False
    page: int = 100
    most: int = 10_000
    absolute: bool = False
    opaque: bool = False
    lists_as: str = "application/json"
    metered: bool = False
    limited: Refusal = (429, "TOOMANYREQUESTS", "too many requests")
    user: str = "maintainer"

    @property
    def realm_host(self) -> str:
        return urllib.parse.urlsplit(self.realm).netloc


ACCOUNT = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
EXPIRED = (403, "DENIED", "Your authorization token has expired. Reauthenticate and try again.")
INVALID = (400, "DENIED", "Your Authorization Token is invalid.")
FORBIDDEN = (403, "DENIED", "access forbidden")
GOOGLE = (
    403,
    "DENIED",
    'Unauthenticated request. Unauthenticated requests do not have permission "artifactregistry.repositories.'
    'downloadArtifacts" on resource "projects/acme" (or it may not exist)',
)

MANNERS = {
    "hub": Manner(
        label="Docker Hub", host="registry-1.docker.io", written="acme/skates",
        realm="https://auth.docker.io/token", service="registry.docker.io",
        grant=("token", "access_token", "expires_in", "issued_at"), posts=True,
        wrong=(401, "UNAUTHORIZED", "incorrect username or password"), unknown=REQUIRED, metered=True,
        limited=(429, "TOOMANYREQUESTS", "You have reached your unauthenticated pull rate limit."),
    ),
    "ghcr": Manner(
        label="GitHub Container Registry", host="ghcr.io", written="ghcr.io/acme/skates",
        realm="https://ghcr.io/token", service="ghcr.io",
        ungranted=REQUIRED, wrong=(403, "DENIED", "denied"), denied=(403, "DENIED", "denied"),
    ),
    "gcr": Manner(
        label="Google Container Registry", host="gcr.io", written="gcr.io/acme/skates",
        realm="https://gcr.io/v2/token", service="gcr.io", open=True,
        grant=("token", "expires_in", "issued_at"), ungranted=GOOGLE, denied=GOOGLE, moved=302, at_home=True,
        user="_json_key",
    ),
    "artifact": Manner(
        label="Google Artifact Registry", host="europe-docker.pkg.dev", written="europe-docker.pkg.dev/acme/tools/skates",
        realm="https://europe-docker.pkg.dev/v2/token", service="europe-docker.pkg.dev",
        grant=("token", "expires_in", "issued_at"), ungranted=GOOGLE, denied=GOOGLE, moved=302, at_home=True,
        user="oauth2accesstoken",
    ),
    "quay": Manner(
        label="Quay", host="quay.io", written="quay.io/acme/skates",
        realm="https://quay.io/v2/auth", service="quay.io", open=True,
        wrong=(401, "UNAUTHORIZED", "Invalid username or password."), denied=NO_ACCESS, unknown=NO_ACCESS,
        moved=302, user="acme+robot",
    ),
    "ecr-public": Manner(
        label="Amazon ECR Public", host="public.ecr.aws", written="public.ecr.aws/acme/skates",
        realm="https://public.ecr.aws/token/", service="public.ecr.aws", scope="aws",
        wrong=EXPIRED, stale=INVALID, denied=(403, "DENIED", "Not Authorized"), page=1000, most=1000,
        absolute=True, opaque=True, lists_as="text/plain; charset=utf-8",
        limited=(429, "TOOMANYREQUESTS", "Rate exceeded"), user="AWS",
    ),
    "ecr": Manner(
        label="Amazon ECR", host=ACCOUNT, written=f"{ACCOUNT}/acme/skates",
        realm="", service="ecr.amazonaws.com", wrong=INVALID, page=100, most=1000,
        absolute=True, opaque=True, lists_as="text/plain; charset=utf-8",
        limited=(429, "TOOMANYREQUESTS", "Rate exceeded"), user="AWS",
    ),
    "acr": Manner(
        label="Azure Container Registry", host="acme.azurecr.io", written="acme.azurecr.io/skates",
        realm="https://acme.azurecr.io/oauth2/token", service="acme.azurecr.io", grant=("access_token",), posts=True,
        ungranted=REQUIRED,
    ),
    "gitlab": Manner(
        label="GitLab", host="registry.gitlab.com", written="registry.gitlab.com/acme/tools/skates",
        realm="https://gitlab.com/jwt/auth", service="container_registry",
        ungranted=FORBIDDEN, wrong=(401, "UNAUTHORIZED", "HTTP Basic: Access denied."),
    ),
    "gitlab-own": Manner(
        label="GitLab, self-managed", host="registry.acme.example", written="registry.acme.example/acme/skates",
        realm="https://gitlab.acme.example/jwt/auth", service="container_registry",
        ungranted=FORBIDDEN, wrong=(401, "UNAUTHORIZED", "HTTP Basic: Access denied."), moved=0,
    ),
}  # fmt: skip
