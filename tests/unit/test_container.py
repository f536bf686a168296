"""Containers without a socket: what is asked of registries, and what becomes of what they answer."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.artifacts.container import (
    KIND,
    ContainerRow,
    ContainerSite,
    PatternRow,
    Patterns,
    clashes,
    collect,
    declare,
)
from waypost.artifacts.distribution import LARGEST_MANIFEST
from waypost.artifacts.kind import Collection, DeclarationError, HostPolicy, Package
from waypost.artifacts.oci import summarise
from waypost.artifacts.reference import DOCKER_HUB
from waypost.artifacts.snapshot import Host, decode_host, encode_host, sites_of
from waypost.routing.decision import Fact, Fetch, Redirect, Refuse, Relay, Reply, UpstreamHead
from waypost.routing.pattern import Pattern
from waypost.routing.request import Request

BASE = "https://docker.acme.example"
HOST = "docker.acme.example"
DIGEST = "sha256:" + "a" * 64
ROWS = [
    ContainerRow("acme/skates", "reg.example", "team/long-name", "acme/skates", "acme"),
    ContainerRow("short", DOCKER_HUB, "library/short", "short"),
    PatternRow("col/*", "quay.example", "acme"),
]
SUBJECT = {"digest": DIGEST}
SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"


def site(rows: Sequence[Any] = ROWS, base: str = "http://docker.acme.example") -> ContainerSite:
    return ContainerSite(rows, HostPolicy(base))


def ask(
    path: str,
    method: str = "GET",
    headers: Sequence[tuple[str, str]] = (),
    query: str | None = None,
    **more: Any,
) -> Any:
    scheme = more.pop("scheme", "http")
    return site(**more).decide(Request(method, HOST, path, query, headers, scheme=scheme))


def asked(path: str, *arguments: Any, **more: Any) -> Fetch:
    fetch = ask(path, *arguments, **more)
    assert isinstance(fetch, Fetch), fetch
    return fetch


def head(status: int = 200, body: Any = b"", **headers: str) -> UpstreamHead:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return UpstreamHead(status, tuple((name.replace("_", "-"), value) for name, value in headers.items()), content)


def digest_of(body: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}"


# What is asked


@pytest.mark.parametrize(
    ("path", "url", "scope"),
    [
        (
            "/v2/acme/skates/manifests/1.0",
            "https://reg.example/v2/team/long-name/manifests/1.0",
            "repository:team/long-name:pull",
        ),
        (
            f"/v2/short/blobs/{DIGEST}",
            f"https://{DOCKER_HUB}/v2/library/short/blobs/{DIGEST}",
            "repository:library/short:pull",
        ),
        (
            "/v2/acme/skates/tags/list",
            "https://reg.example/v2/team/long-name/tags/list",
            "repository:team/long-name:pull",
        ),
        (
            f"/v2/acme/skates/referrers/{DIGEST}",
            f"https://reg.example/v2/team/long-name/referrers/{DIGEST}",
            "repository:team/long-name:pull",
        ),
        ("/v2/col/any/manifests/1", "https://quay.example/v2/col/any/manifests/1", "repository:col/any:pull"),
        (
            "/v2/acme%2Fskates/manifests/sha256%3A" + "a" * 64,
            f"https://reg.example/v2/team/long-name/manifests/{DIGEST}",
            "repository:team/long-name:pull",
        ),
    ],
)
def test_a_public_name_leads_to_its_repository(path: str, url: str, scope: str) -> None:
    fetch = asked(path)
    assert (fetch.url, fetch.scope, fetch.method) == (url, scope, "GET")
    assert fetch.buffer == (0 if "/blobs/" in path else LARGEST_MANIFEST)


def test_of_the_clients_headers_only_these_go_along() -> None:
    given = [("accept", "a"), ("accept", "b"), ("authorization", "Basic x"), ("cookie", "c"),
             ("if-none-match", '"e"'), ("range", "bytes=5-"), ("user-agent", "skopeo"),
             ("x-forwarded-for", "192.0.2.1")]  # fmt: skip
    assert asked("/v2/short/manifests/1", "GET", given).headers == (
        ("Accept", "a"),
        ("Accept", "b"),
    )
    assert asked(f"/v2/short/blobs/{DIGEST}", "GET", given).headers == (
        ("Accept", "a"),
        ("Accept", "b"),
        ("Range", "bytes=5-"),
    )


def test_queries_of_lists_go_along_and_stay_queries() -> None:
    assert asked("/v2/short/tags/list", query="n=2&last=a%2Fb").url.endswith("/tags/list?n=2&last=a%2Fb")
    assert asked("/v2/short/tags/list", query="a b\r\n#é").url.endswith("/tags/list?a%20b%0D%0A%23%C3%A9")
    assert "?" not in asked("/v2/short/manifests/1", query="ns=docker.io").url


def test_heads_of_manifests_and_blobs_are_heads_upstream() -> None:
    assert asked("/v2/short/manifests/1", "HEAD").method == "HEAD"
    assert asked("/v2/short/manifests/1", "HEAD").buffer == 0
    assert asked(f"/v2/short/blobs/{DIGEST}", "HEAD").method == "HEAD"
    assert asked("/v2/short/tags/list", "HEAD").method == "GET"


@pytest.mark.parametrize("path", ["/v2/", "/v2"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_ping_wants_no_login(path: str, method: str) -> None:
    answer = ask(path, method)
    assert (answer.status, answer.body) == (200, b"{}")
    assert ("Docker-Distribution-API-Version", "registry/2.0") in answer.headers


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v2/_catalog", 404, "UNSUPPORTED"),
        ("/v2/nobody/manifests/1", 404, "NAME_UNKNOWN"),
        ("/v2/col/a/b/manifests/1", 404, "NAME_UNKNOWN"),
        ("/v2/No/manifests/1", 400, "NAME_INVALID"),
        ("/v2//manifests/1", 400, "NAME_INVALID"),
        ("/v2/col/../manifests/1", 400, "NAME_INVALID"),
        ("/v2/" + "a" * 256 + "/manifests/1", 400, "NAME_INVALID"),
        ("/v2/short/manifests/.1", 404, "TAG_INVALID"),
        ("/v2/short/manifests/", 404, "TAG_INVALID"),
        ("/v2/short/manifests/sha256:abc", 400, "DIGEST_INVALID"),
        ("/v2/short/blobs/latest", 400, "DIGEST_INVALID"),
        ("/v2/short/referrers/latest", 400, "DIGEST_INVALID"),
        ("/v2/short/tags/all", 404, "UNSUPPORTED"),
        ("/v2/short", 404, "UNSUPPORTED"),
        ("/v2/short/elsewhere/1", 404, "UNSUPPORTED"),
        ("/v2/%ff/manifests/1", 400, "NAME_INVALID"),
    ],
)
def test_refusals_speak_the_registries_language(path: str, status: int, code: str) -> None:
    answer = ask(path)
    assert isinstance(answer, Refuse)
    assert (answer.status, answer.code) == (status, code)
    assert answer.message.isascii()


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_writes_are_refused(method: str) -> None:
    for path in ("/v2/short/blobs/uploads/", "/v2/short/manifests/1", "/v2/"):
        answer = ask(path, method)
        assert (answer.status, answer.code) == (405, "UNSUPPORTED")
        assert ("Allow", "GET, HEAD") in answer.headers


@pytest.mark.parametrize("path", ["/", "/v1/", "/v22/", "/simple/", "/v2x"])
def test_other_paths_are_not_ours(path: str) -> None:
    assert ask(path) is None


# Manifests


def platform(architecture: str, variant: str | None = None, os: str = "linux") -> dict[str, str]:
    return {"os": os, "architecture": architecture, **({"variant": variant} if variant else {})}


def test_a_manifest_by_tag_is_verified_and_recorded_with_what_it_lists() -> None:
    index = {
        "mediaType": INDEX,
        "manifests": [
            {"digest": "sha256:1", "platform": platform("amd64")},
            {"digest": "sha256:2", "platform": platform("arm64", "v8")},
            {
                "digest": "sha256:3",
                "platform": platform("unknown", os="unknown"),
                "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
            },
            {"digest": "sha256:4"},
        ],
    }
    body = json.dumps(index).encode()
    answer = asked("/v2/acme/skates/manifests/1.0").then(
        head(
            200,
            body,
            content_type=INDEX,
            docker_content_digest=digest_of(body),
            etag='"e"',
            set_cookie="no",
            x_rate="9",
        )
    )
    assert isinstance(answer, Reply)
    assert (answer.status, answer.body) == (200, body)
    assert answer.headers == (
        ("Content-Type", INDEX),
        ("Docker-Content-Digest", digest_of(body)),
        ("ETag", f'"{digest_of(body)}"'),
    )
    assert answer.facts == (
        Fact(
            kind="manifest-fetch", package="acme/skates", owner="acme", tag="1.0", digest=digest_of(body),
            artifact="index",
            upstream="reg.example",
            lists={"sha256:1": "linux/amd64", "sha256:2": "linux/arm64/v8",
                   "sha256:3": "unknown/unknown", "sha256:4": ""},
        ),
    )  # fmt: skip


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_manifest_by_digest_names_that_digest(algorithm: str) -> None:
    body = json.dumps({"mediaType": MANIFEST, "config": {"mediaType": CONFIG}}).encode()
    digest = digest_of(body, algorithm)
    answer = asked(f"/v2/short/manifests/{digest}").then(head(200, body, content_type=MANIFEST))
    assert isinstance(answer, Reply)
    assert ("Docker-Content-Digest", digest) in answer.headers
    assert [(fact.tag, fact.digest, fact.artifact) for fact in answer.facts] == [(None, digest, "image")]


def test_without_a_digest_from_the_registry_we_compute_it() -> None:
    answer = asked("/v2/short/manifests/1").then(head(200, b"{}"))
    assert isinstance(answer, Reply)
    assert ("Docker-Content-Digest", digest_of(b"{}")) in answer.headers


@pytest.mark.parametrize(
    ("path", "told"),
    [
        (f"/v2/short/manifests/{DIGEST}", None),
        ("/v2/short/manifests/1", DIGEST),
        (f"/v2/short/manifests/{digest_of(b'{}')}", DIGEST),
        ("/v2/short/manifests/1", "nonsense"),
    ],
)
def test_wrong_bytes_are_the_upstreams_fault(path: str, told: str | None) -> None:
    answer = asked(path).then(head(200, b"{}", **({"docker_content_digest": told} if told else {})))
    assert isinstance(answer, Refuse)
    assert (answer.status, answer.code) == (502, "UPSTREAM_MISBEHAVED")
    assert DOCKER_HUB in answer.message


def test_a_head_keeps_length_type_and_digest() -> None:
    answer = asked("/v2/short/manifests/1", "HEAD").then(
        head(
            200, b"", content_length="527", content_type=MANIFEST, docker_content_digest=DIGEST, date="now", etag='"e"'
        )
    )
    assert isinstance(answer, Reply)
    assert dict(answer.headers) == {
        "Content-Length": "527",
        "Content-Type": MANIFEST,
        "Docker-Content-Digest": DIGEST,
        "ETag": f'"{DIGEST}"',
    }
    assert [(fact.kind, fact.tag, fact.digest) for fact in answer.facts] == [("manifest-head", "1", DIGEST)]


def test_a_head_that_names_no_digest_has_no_etag() -> None:
    answer = asked("/v2/short/manifests/1", "HEAD").then(head(200, b"", content_type=MANIFEST, etag='"e"'))
    assert isinstance(answer, Reply)
    assert dict(answer.headers) == {"Content-Type": MANIFEST}


@pytest.mark.parametrize(
    ("manifest", "tag", "artifact"),
    [
        ({"config": {"mediaType": CONFIG}}, "1", "image"),
        ({"config": {"mediaType": "application/vnd.docker.container.image.v1+json"}}, "1", "image"),
        ({"schemaVersion": 1, "name": "x", "history": []}, "1", "image"),
        ({"manifests": []}, "1", "index"),
        ({"mediaType": "application/vnd.docker.distribution.manifest.list.v2+json"}, "1", "index"),
        ({"config": {"mediaType": "application/vnd.cncf.helm.config.v1+json"}}, "1", "chart"),
        ({"config": {"mediaType": CONFIG}}, "sha256-" + "a" * 64 + ".sig", "signature"),
        ({"config": {"mediaType": CONFIG}}, "sha256-" + "a" * 64 + ".att", "attestation"),
        ({"config": {"mediaType": CONFIG}}, "sha256-" + "a" * 64 + ".sbom", "sbom"),
        ({"config": {"mediaType": CONFIG}}, "sha256-" + "a" * 63 + ".sig", "image"),
        ({"layers": [{"mediaType": "application/vnd.in-toto+json"}]}, None, "attestation"),
        ({"config": {"mediaType": CONFIG}, "layers": [{"mediaType": SIMPLE_SIGNING}]}, None, "signature"),
        ({"artifactType": "application/vnd.dev.sigstore.bundle.v0.3+json"}, None, "signature"),
        ({"artifactType": "application/spdx+json"}, None, "sbom"),
        ({"artifactType": "application/vnd.acme.review", "subject": SUBJECT}, None, "referrer"),
        ({"config": {"mediaType": CONFIG}, "subject": SUBJECT}, None, "referrer"),
        ({"manifests": [], "subject": SUBJECT}, None, "referrer"),
        ({"config": {"mediaType": "application/vnd.oci.empty.v1+json"}}, "1", "artifact"),
    ],
)  # fmt: skip
def test_what_a_manifest_is(manifest: dict[str, Any], tag: str | None, artifact: str) -> None:
    assert summarise(json.dumps(manifest).encode(), MANIFEST, tag).artifact == artifact


names = st.sampled_from(["manifests", "digest", "platform", "config", "mediaType", "layers"])
documents = st.recursive(
    st.none() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=3),
).map(lambda document: json.dumps(document).encode())


@given(st.binary(max_size=60) | documents)
def test_any_bytes_have_a_summary(body: bytes) -> None:
    assert summarise(body).artifact in ("image", "index", "artifact", "other")
    assert summarise(b"[" * 100_000).artifact == "other"


# Blobs


def test_a_blob_in_a_bucket_is_the_clients_to_fetch() -> None:
    location = "https://bucket.example:8443/data?sig=a%2Bb&x=1"
    answer = asked(f"/v2/acme/skates/blobs/{DIGEST}").then(head(307, location=location))
    fact = Fact(kind="blob-fetch", package="acme/skates", owner="acme", digest=DIGEST, upstream="reg.example")
    assert answer == Redirect(location, (fact,))
    answer = asked(f"/v2/acme/skates/blobs/{DIGEST}", "HEAD").then(head(302, location=location))
    assert answer == Redirect(location)


@pytest.mark.parametrize(
    ("location", "url", "scope"),
    [
        ("/storage/x?y=1", "https://reg.example/storage/x?y=1", "repository:team/long-name:pull"),
        ("http://reg.example/storage/x", "https://reg.example/storage/x", "repository:team/long-name:pull"),
        (
            "https://REG.example:443/storage/x",
            "https://reg.example/storage/x",
            "repository:team/long-name:pull",
        ),
        (
            f"/v2/moved/blobs/{DIGEST}",
            f"https://reg.example/v2/moved/blobs/{DIGEST}",
            "repository:moved:pull",
        ),
        (
            f"https://pkg.example/v2/p/x/blobs/{DIGEST}",
            f"https://pkg.example/v2/p/x/blobs/{DIGEST}",
            "repository:p/x:pull",
        ),
    ],
)
def test_what_may_want_a_token_is_ours_to_follow(location: str, url: str, scope: str) -> None:
    hop = asked(f"/v2/acme/skates/blobs/{DIGEST}", "GET", [("range", "bytes=1-")]).then(head(307, location=location))
    assert isinstance(hop, Fetch)
    assert (hop.url, hop.scope, hop.method, hop.headers, hop.buffer) == (
        url,
        scope,
        "GET",
        (("Range", "bytes=1-"),),
        0,
    )
    assert isinstance(hop.then(head(200)), Relay)


@pytest.mark.parametrize("more", [{"scheme": "https"}, {"base": BASE}])
def test_a_client_on_https_is_never_sent_to_http(more: dict[str, Any]) -> None:
    hop = asked(f"/v2/acme/skates/blobs/{DIGEST}", **more).then(head(307, location="http://bucket.example/x"))
    assert isinstance(hop, Fetch)
    assert (hop.url, hop.scope) == ("http://bucket.example/x", None)


@pytest.mark.parametrize(
    "location",
    [
        None,
        "",
        "ftp://x.example/",
        "https://u:p@x.example/",
        "https://x.example:99999/",
        "https://[x/",
        "https://%31%32%37.0.0.1/",
    ],
)
def test_a_redirect_to_nowhere_is_the_upstreams_fault(location: str | None) -> None:
    answer = asked(f"/v2/acme/skates/blobs/{DIGEST}").then(
        head(307, **({} if location is None else {"location": location}))
    )
    assert isinstance(answer, Refuse)
    assert answer.status == 502


@given(st.text(max_size=30), st.sampled_from(["https://bucket.example/", "/", "//", ""]))
def test_locations_are_visible_ascii(text: str, start: str) -> None:
    answer = asked(f"/v2/acme/skates/blobs/{DIGEST}").then(head(307, location=start + text))
    url = answer.location if isinstance(answer, Redirect) else answer.url if isinstance(answer, Fetch) else ""
    assert re.fullmatch(r"[\x21-\x7e]*", url)


def test_blob_bytes_pass_with_what_resuming_needs() -> None:
    answer = asked(f"/v2/short/blobs/{DIGEST}", headers=[("range", "bytes=5-9")]).then(
        head(
            206,
            content_length="5",
            content_range="bytes 5-9/10",
            content_type="a/b",
            accept_ranges="bytes",
            etag='"x"',
            server="y",
        )
    )
    assert isinstance(answer, Relay)
    assert answer.status == 206
    assert dict(answer.headers) == {
        "Docker-Content-Digest": DIGEST, "Content-Length": "5", "Content-Range": "bytes 5-9/10",
        "Content-Type": "a/b", "Accept-Ranges": "bytes", "ETag": '"x"',
    }  # fmt: skip
    assert [fact.kind for fact in answer.facts] == ["blob-fetch"]
    answer = asked(f"/v2/short/blobs/{DIGEST}", "HEAD").then(head(200, content_length="10"))
    assert answer == Reply(200, (("Docker-Content-Digest", DIGEST), ("Content-Length", "10")))


# Redirected manifests, lists, failures


def test_a_redirected_manifest_is_ours_to_follow() -> None:
    hop = asked("/v2/acme/skates/manifests/1").then(head(307, location="https://pkg.example/v2/p/images/x/manifests/1"))
    assert isinstance(hop, Fetch)
    assert (hop.url, hop.scope, hop.buffer) == (
        "https://pkg.example/v2/p/images/x/manifests/1",
        "repository:p/images/x:pull",
        LARGEST_MANIFEST,
    )
    answer = hop.then(head(200, b"{}"))
    assert isinstance(answer, Reply)
    assert answer.facts[0].upstream == "reg.example"


def test_tag_lists_and_links_are_ours() -> None:
    answer = asked("/v2/acme/skates/tags/list", query="n=2").then(
        head(
            200,
            {"name": "team/long-name", "tags": ["1", "2"]},
            content_type="application/json",
            link='</v2/team/long-name/tags/list?last=2&n=2>; rel="next"',
        )
    )
    assert isinstance(answer, Reply)
    assert json.loads(answer.body) == {"name": "acme/skates", "tags": ["1", "2"]}
    assert (
        "Link",
        '<http://docker.acme.example/v2/acme/skates/tags/list?last=2&n=2>; rel="next"',
    ) in answer.headers
    assert answer.facts == ()


def test_referrers_pass_with_our_links() -> None:
    body = b'{"manifests": []}'
    answer = asked(f"/v2/acme/skates/referrers/{DIGEST}").then(
        head(
            200,
            body,
            content_type=INDEX,
            oci_filters_applied="artifactType",
            link="<https://reg.example/v2/team/long-name/referrers/x?p=2>; rel=next",
        )
    )
    assert isinstance(answer, Reply)
    assert answer.body == body
    assert answer.headers == (
        ("Content-Type", INDEX),
        ("OCI-Filters-Applied", "artifactType"),
        ("Link", f"<http://docker.acme.example/v2/acme/skates/referrers/{DIGEST}?p=2>; rel=next"),
    )


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>"])
def test_a_tag_list_that_is_none(body: bytes) -> None:
    answer = asked("/v2/short/tags/list").then(head(200, body))
    assert isinstance(answer, Refuse)
    assert answer.status == 502


@pytest.mark.parametrize(
    ("status", "ours", "code"),
    [
        (401, 401, "UNAUTHORIZED"),
        (403, 403, "DENIED"),
        (404, 404, "MANIFEST_UNKNOWN"),
        (429, 429, "TOOMANYREQUESTS"),
        *((status, 502, "UPSTREAM_MISBEHAVED") for status in (204, 400, 500, 503)),
    ],
)
def test_failures_speak_of_the_public_name(status: int, ours: int, code: str) -> None:
    answer = asked("/v2/acme/skates/manifests/1").then(
        head(status, b"team/long-name", retry_after="9", www_authenticate="Bearer realm=x")
    )
    assert isinstance(answer, Refuse)
    assert (answer.status, answer.code) == (ours, code)
    assert "long-name" not in answer.message
    assert (("Retry-After", "9") in answer.headers) == (ours != 502)
    assert not any(name.lower() == "www-authenticate" for name, _ in answer.headers)


NOTHING_THAT_WAS_ASKED = [
    ("manifests/1", head(206, b"{}", content_range="bytes 0-1/9")),
    ("manifests/1", head(200, b"<html>log in</html>", content_type="text/html")),
    ("manifests/1", head(200, b"")),
    ("manifests/1", head(200, b"[]")),
    ("manifests/1", head(200, b"[" * 100_000)),
    ("manifests/1", head(200, b"{}", content_encoding="gzip")),
    ("manifests/1", head(304, etag='"e"')),
    (f"blobs/{DIGEST}", head(206, content_range="bytes 5-9/10")),
    (f"blobs/{DIGEST}", head(200, content_encoding="br")),
    (f"blobs/{DIGEST}", head(304)),
    (f"referrers/{DIGEST}", head(200, b"<html>")),
    (f"referrers/{DIGEST}", head(206, b"{}")),
]


@pytest.mark.parametrize(("path", "answer"), NOTHING_THAT_WAS_ASKED)
def test_what_was_not_asked_for_is_the_upstreams_fault(path: str, answer: UpstreamHead) -> None:
    refusal = asked(f"/v2/short/{path}").then(answer)
    assert isinstance(refusal, Refuse)
    assert (refusal.status, refusal.code) == (502, "UPSTREAM_MISBEHAVED")


def test_identity_is_no_coding() -> None:
    assert isinstance(asked("/v2/short/manifests/1").then(head(200, b"{}", content_encoding="Identity")), Reply)


def test_a_location_in_utf8_stays_what_it_was() -> None:
    location = "https://bucket.example/ü".encode().decode("latin-1")
    answer = asked(f"/v2/short/blobs/{DIGEST}").then(head(307, location=location))
    assert isinstance(answer, Redirect)
    assert answer.location == "https://bucket.example/%C3%BC"


# Rows


def test_rows_survive_a_snapshot_and_make_one_site() -> None:
    host = decode_host(encode_host(Host(HOST, HostPolicy(BASE), list(ROWS))))
    assert host.rows == ROWS
    (only,) = sites_of(host)
    assert isinstance(only.decide(Request("GET", HOST, "/v2/col/x/manifests/1")), Fetch)
    assert isinstance(only.decide(Request("GET", HOST, "/v2/short/manifests/1")), Fetch)


def test_declare() -> None:
    package = Package(type="container", name="acme/skates", owner="acme", upstream="docker pull rocket-skates:1.0")
    assert declare(package) == [ContainerRow("acme/skates", DOCKER_HUB, "library/rocket-skates", "acme/skates", "acme")]
    assert KIND.name == "container"


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({}, "upstream"),
        ({"upstream": []}, "upstream"),
        ({"upstream": ["a", "docker.io/a"]}, "upstream"),
        ({"upstream": "A"}, "upstream"),
        ({"upstream": "a", "name": "Acme"}, "name"),
        ({"upstream": "a", "routes": [{}]}, "routes"),
    ],
)
def test_what_cannot_be_declared_says_which_key(more: dict[str, Any], key: str) -> None:
    with pytest.raises(DeclarationError) as error:
        declare(Package(**{"type": "container", "name": "acme/x", **more}))
    assert error.value.key == key


def test_a_proxied_image_streams_what_its_registry_redirects() -> None:
    (row,) = declare(Package(type="container", name="acme/x", upstream="quay.example/acme/x", proxy=True))
    hop = asked(f"/v2/acme/x/blobs/{DIGEST}", rows=[row]).then(head(307, location="https://bucket.example/x"))
    assert isinstance(hop, Fetch)
    assert (hop.url, hop.scope) == ("https://bucket.example/x", None)
    assert isinstance(hop.then(head(200)), Relay)


def test_one_name_twice_clashes() -> None:
    assert clashes(ROWS) == []
    (clash,) = clashes([*ROWS, ContainerRow("short", "x.example", "y", "short")])
    assert clash.one == ROWS[1]
    assert "short" in clash.why


def test_explain_says_what_answers() -> None:
    assert "declared by name" in site().explain(Request("GET", HOST, "/v2/short/manifests/1"))[0]
    assert "matched by a pattern" in site().explain(Request("GET", HOST, "/v2/col/x/manifests/1"))[0]
    assert "No image" in site().explain(Request("GET", HOST, "/v2/nobody/manifests/1"))[0]
    assert site().explain(Request("GET", HOST, "/"))


segment = st.sampled_from(["a", "b", "ab", "*", "a*", "*b", "{a,b}", "{a,*b}c", "abc"])
patterns = st.lists(st.lists(segment, min_size=1, max_size=3).map("/".join), max_size=8)


@given(patterns, st.lists(st.sampled_from(["a", "b", "ab", "abc", "ac"]), min_size=1, max_size=3).map("/".join))
def test_the_best_pattern_is_what_a_plain_search_finds(texts: list[str], name: str) -> None:
    rows = [PatternRow(text, f"reg{number}.example") for number, text in enumerate(texts)]
    matching = [row for row in rows if Pattern.parse(row.pattern).match(name) is not None]
    best = min(
        matching,
        default=None,
        key=lambda row: (-Pattern.parse(row.pattern).literal, Pattern.parse(row.pattern).wildcards),
    )
    found = Patterns(rows).find(name)
    assert (found.upstream.registry if found else None) == (best.registry if best else None)


@given(
    st.sampled_from(["GET", "HEAD", "POST", "BREW"]),
    st.text(st.sampled_from("/v2acmeskthorl.%f0:@\\?#\r\n é"), max_size=40).map(lambda text: "/v2/" + text),
    st.none() | st.text(max_size=10),
    st.lists(st.tuples(st.sampled_from(["accept", "range", "host"]), st.text(max_size=5)), max_size=2),
)
def test_no_request_chooses_where_we_go(
    method: str, path: str, query: str | None, headers: list[tuple[str, str]]
) -> None:
    known = ["/v2/acme/skates/manifests/", "/v2/col/", "/v2/acme/skates/tags/list"]
    for start in ["", *known]:
        decision = ask(start + path if start else path, method, headers, query)
        if isinstance(decision, Fetch):
            assert re.match(
                r"https://(reg\.example|quay\.example|registry-1\.docker\.io)/v2/[\x21-\x7e]*\Z", decision.url
            )
        site().explain(Request(method, HOST, path))


def collection(pattern: str, upstream: str) -> Collection:
    return Collection(pattern=pattern, upstream=upstream, owner="acme")


@pytest.mark.parametrize(
    ("pattern", "upstream", "name", "where"),
    [
        ("acme/*", "ghcr.io", "acme/web", "ghcr.io/v2/acme/web"),
        ("acme/*", "docker.io", "acme/web", "registry-1.docker.io/v2/acme/web"),
        ("*", "docker.io", "web", "registry-1.docker.io/v2/library/web"),
        ("acme/{web,db}", "ghcr.io", "acme/db", "ghcr.io/v2/acme/db"),
        ("acme/*/*", "ghcr.io", "acme/web/ui", "ghcr.io/v2/acme/web/ui"),
        ("acme/*", "ghcr.io/mirror/{name}", "acme/web", "ghcr.io/v2/mirror/acme/web"),
        ("acme/*/*", "quay.io/{2}/{1}", "acme/web/ui", "quay.io/v2/ui/web"),
        ("acme/*-*", "quay.io/x/{2}", "acme/web-ui", "quay.io/v2/x/ui"),
    ],
)
def test_a_collection_leads_to_its_repositories(pattern: str, upstream: str, name: str, where: str) -> None:
    site = ContainerSite(collect(collection(pattern, upstream)), HostPolicy("http://d.example"))
    decision = site.decide(Request("GET", "d.example", f"/v2/{name}/manifests/1.0"))
    assert isinstance(decision, Fetch)
    assert decision.url == f"https://{where}/manifests/1.0"


@pytest.mark.parametrize(
    ("pattern", "upstream", "key"),
    [
        ("acme/{", "ghcr.io", "pattern"),
        ("", "ghcr.io", "pattern"),
        ("acme/*", "GHCR io", "upstream"),
        ("acme/*", "ghcr.io/{2}", "upstream"),
        ("acme/*", "ghcr.io/{version}", "upstream"),
        ("acme/*", "ghcr.io/always/the-same", "upstream"),
        ("acme/*", "ghcr.io/UPPER/{name}", "upstream"),
        ("acme/*", "{name}.example/x", "upstream"),
    ],
)
def test_a_collection_that_cannot_be_is_refused(pattern: str, upstream: str, key: str) -> None:
    with pytest.raises(DeclarationError) as error:
        collect(collection(pattern, upstream))
    assert error.value.key == key


def test_a_package_wins_over_a_pattern_and_a_narrow_pattern_over_a_wide_one() -> None:
    rows = [
        *collect(collection("*/*", "wide.example")),
        *collect(collection("acme/*", "narrow.example")),
        ContainerRow("acme/web", "own.example", "x/y", "acme/web"),
    ]
    site = ContainerSite(rows, HostPolicy("http://d.example"))
    for name, host in (("acme/web", "own.example"), ("acme/db", "narrow.example"), ("other/db", "wide.example")):
        decision = site.decide(Request("GET", "d.example", f"/v2/{name}/manifests/1.0"))
        assert isinstance(decision, Fetch)
        assert decision.url.startswith(f"https://{host}/")


def test_a_pattern_that_is_declared_twice_clashes() -> None:
    rows = [*collect(collection("acme/*", "a.example")), *collect(collection("acme/*", "b.example"))]
    assert len(clashes(rows)) == 1


def test_several_upstreams_are_asked_in_their_order() -> None:
    row = ContainerRow("x", "a.example", "one/x", "x", others=(("b.example", "two/y"), ("c.example", "z")))
    site = ContainerSite([row], HostPolicy("http://d.example"))
    digest = "sha256:" + 64 * "0"
    for path, alike, kept in (
        ("manifests/1.0", False, True),
        (f"manifests/{digest}", True, True),
        (f"blobs/{digest}", True, False),
        ("tags/list", False, False),
    ):
        decision = site.decide(Request("GET", "d.example", f"/v2/x/{path}"))
        assert isinstance(decision, Fetch)
        assert [one.url for one in (decision, *decision.others)] == [
            f"https://a.example/v2/one/x/{path}",
            f"https://b.example/v2/two/y/{path}",
            f"https://c.example/v2/z/{path}",
        ]
        assert [one.scope for one in (decision, *decision.others)] == [
            f"repository:{name}:pull" for name in ("one/x", "two/y", "z")
        ]
        assert (decision.alike, decision.keep is not None) == (alike, kept)


def test_a_conditional_question_is_kept_as_any_other() -> None:
    plain, conditional = (
        asked("/v2/short/manifests/1.0", "GET", [("accept", "a"), *more]) for more in ([], [("if-none-match", '"a"')])
    )
    assert plain.keep is not None
    assert (conditional.keep, conditional.headers) == (plain.keep, plain.headers)


# C8: the platform of an image that stands in no index is in its config

CONFIG_DIGEST = "sha256:" + "c" * 64
PLAIN_IMAGE = {"schemaVersion": 2, "config": {"mediaType": CONFIG, "digest": CONFIG_DIGEST}, "layers": []}


def image_answer(reference: str = "1.0", **more: Any) -> Any:
    upstream = head(200, PLAIN_IMAGE, content_type="application/vnd.oci.image.manifest.v1+json")
    return asked(f"/v2/acme/skates/manifests/{reference}").then(msgspec.structs.replace(upstream, **more))


def test_the_config_of_an_image_is_asked_for_its_platform() -> None:
    question = image_answer()
    assert isinstance(question, Fetch)
    assert question.url == f"https://reg.example/v2/team/long-name/blobs/{CONFIG_DIGEST}"
    assert question.scope == "repository:team/long-name:pull"
    reply = question.then(head(200, {"os": "linux", "architecture": "arm64", "variant": "v8", "history": []}))
    assert isinstance(reply, Reply)
    assert (reply.status, reply.facts[0].platform) == (200, "linux/arm64/v8")
    assert json.loads(reply.body) == PLAIN_IMAGE


@pytest.mark.parametrize("answer", [head(404), head(500), head(200, b"{"), head(200, b"[]"), head(200, {}), head(307)])
def test_the_manifest_is_served_whatever_comes_of_its_config(answer: UpstreamHead) -> None:
    reply = image_answer().then(answer)
    assert isinstance(reply, Reply)
    assert (reply.status, reply.facts[0].platform) == (200, None)
    assert image_answer().instead == reply


def test_a_config_in_a_bucket_is_fetched_there_without_a_token() -> None:
    further = image_answer().then(head(307, location="https://bucket.example/x?sig=1"))
    assert isinstance(further, Fetch)
    assert (further.url, further.scope) == ("https://bucket.example/x?sig=1", None)
    home = image_answer().then(head(307, location="/elsewhere"))
    assert isinstance(home, Fetch)
    assert home.scope == "repository:team/long-name:pull"


@pytest.mark.parametrize(("known", "platform"), [("linux/amd64", "linux/amd64"), ("", None)])
def test_what_is_known_of_a_kept_manifest_is_not_asked_for_again(known: str, platform: str | None) -> None:
    reply = image_answer(platform=known)
    assert isinstance(reply, Reply)
    assert reply.facts[0].platform == platform


def test_what_is_no_image_has_no_config_to_ask_for() -> None:
    chart = PLAIN_IMAGE | {"config": {"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": CONFIG_DIGEST}}
    for body in (chart, {"schemaVersion": 2, "manifests": []}, {"schemaVersion": 1}):
        assert isinstance(asked("/v2/acme/skates/manifests/1.0").then(head(200, body)), Reply)
