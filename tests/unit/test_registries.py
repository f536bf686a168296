"""Registries that have a name: what people paste of each."""

from __future__ import annotations

import re

import pytest

from waypost.artifacts.reference import ImageNameError, as_written, parse_registry, parse_upstream
from waypost.artifacts.registries import REGISTRIES, asked, find, image_at, paged, shown_at

AWS = "https://eu-central-1.console.aws.amazon.com/ecr/repositories/private/123456789012"
ECR = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
GOOGLE = "https://console.cloud.google.com"

PAGES = {
    "https://hub.docker.com/r/acme/x": "acme/x",
    "https://hub.docker.com/r/acme/x/": "acme/x",
    "https://hub.docker.com/r/acme/x/tags?page=1&name=1.0": "acme/x",
    "https://hub.docker.com/_/redis": "redis",
    "https://hub.docker.com/_/redis/tags": "redis",
    "https://hub.docker.com/repository/docker/acme/x/general": "acme/x",
    "https://hub.docker.com/layers/library/redis/7/images/sha256-abc": "redis",
    "https://hub.docker.com/layers/acme/x/1.0/images/sha256-abc": "acme/x",
    "https://registry.hub.docker.com/r/acme/x": "acme/x",
    "https://docker.io/acme/x": "acme/x",
    "https://github.com/Acme/skates/pkgs/container/x": "ghcr.io/acme/x",
    "https://github.com/acme/skates/pkgs/container/x%2Fy/12345?tag=1.0": "ghcr.io/acme/x/y",
    "https://github.com/orgs/Acme/packages/container/package/x": "ghcr.io/acme/x",
    "https://github.com/orgs/acme/packages/container/x/versions": "ghcr.io/acme/x",
    "https://github.com/users/acme/packages/container/package/x%2Fy": "ghcr.io/acme/x/y",
    "https://ghcr.io/acme/x:1.0": "ghcr.io/acme/x:1.0",
    f"{GOOGLE}/artifacts/docker/acme-1/europe-west3/tools/x?project=acme-1": "europe-west3-docker.pkg.dev/acme-1/tools/x",
    f"{GOOGLE}/artifacts/docker/acme-1/us/gcr.io/x%252Fy/sha256:abc;tab=pull": "us-docker.pkg.dev/acme-1/gcr.io/x/y",
    f"{GOOGLE}/gcr/images/acme/GLOBAL/x": "gcr.io/acme/x",
    f"{GOOGLE}/gcr/images/acme/EU/x/y": "eu.gcr.io/acme/x/y",
    "https://gcr.io/acme/x": "gcr.io/acme/x",
    "https://us-docker.pkg.dev/acme/tools/x": "us-docker.pkg.dev/acme/tools/x",
    "https://quay.io/repository/acme/x?tab=tags&tag=latest": "quay.io/acme/x",
    "https://quay.io/repository/acme/x/manifest/sha256:abc": "quay.io/acme/x",
    "https://quay.io/acme/x": "quay.io/acme/x",
    "https://gallery.ecr.aws/acme/x": "public.ecr.aws/acme/x",
    "https://gallery.ecr.aws/docker/library/python": "public.ecr.aws/docker/library/python",
    "https://public.ecr.aws/acme/x": "public.ecr.aws/acme/x",
    f"{AWS}/acme/x?region=eu-central-1": f"{ECR}/acme/x",
    f"{AWS}/acme/x/_/image/sha256:abc/details?region=eu-central-1": f"{ECR}/acme/x",
    f"https://{ECR}/acme/x": f"{ECR}/acme/x",
    "https://acme.azurecr.io/x": "acme.azurecr.io/x",
    "https://registry.gitlab.com/acme/tools/x": "registry.gitlab.com/acme/tools/x",
}


@pytest.mark.parametrize("url", PAGES)
def test_a_page_names_its_image(url: str) -> None:
    assert image_at(url) == PAGES[url]
    # And is told apart from a file: `waypost add` takes URLs of both.
    assert shown_at(url) is not None
    # It is the same image, pasted or typed.
    assert parse_upstream(url) == parse_upstream(PAGES[url])
    assert as_written(url) == as_written(PAGES[url])
    assert parse_upstream(f"docker pull {url}") == parse_upstream(url)


@pytest.mark.parametrize(
    ("url", "label"),
    [
        ("https://hub.docker.com/", "Docker Hub"),
        ("https://hub.docker.com/u/acme", "Docker Hub"),
        ("https://registry-1.docker.io/v2/acme/x/manifests/1.0", "Docker Hub"),
        ("https://github.com/orgs/acme/packages", "GitHub Container Registry"),
        ("https://github.com/acme/skates/pkgs/npm/x", "GitHub Container Registry"),
        ("https://ghcr.io/v2/acme/x/manifests/1.0", "GitHub Container Registry"),
        (f"{GOOGLE}/artifacts/docker/acme-1/europe-west3/tools", "Google Artifact Registry"),
        (f"{GOOGLE}/gcr/images/acme", "Google Artifact Registry"),
        ("https://quay.io/organization/acme", "Quay"),
        ("https://gallery.ecr.aws/", "Amazon ECR Public"),
        ("https://console.aws.amazon.com/ecr/repositories?region=eu-central-1", "Amazon ECR"),
        ("https://acme.azurecr.io/oauth2/token", "Azure Container Registry"),
        ("https://gitlab.com/acme/tools/container_registry/12345", "GitLab"),
    ],
)
def test_a_page_of_no_image_is_said_to_be_one(url: str, label: str) -> None:
    with pytest.raises(ImageNameError, match=f"is a page of {label}, but not of one image"):
        parse_upstream(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/acme/skates/releases/download/v1.0/skates.tgz",
        "https://gitlab.com/acme/skates/-/releases/v1.0/downloads/skates.tgz",
        "https://hub.docker.com.example/r/acme/x",
        "https://hub.docker.com:8443/r/acme/x",
        "https://me:secret@hub.docker.com/r/acme/x",
        "ftp://hub.docker.com/r/acme/x",
        "https://[/r/acme/x",
        "https://storage.googleapis.com/acme/skates.tgz",
    ],
)
def test_what_is_no_page_of_a_registry_is_left_alone(url: str) -> None:
    assert image_at(url) is None
    assert shown_at(url) is None
    with pytest.raises(ImageNameError, match="is a URL"):
        parse_upstream(url)


def test_pages_are_known_without_their_scheme_but_names_stay_names() -> None:
    assert as_written("gallery.ecr.aws/acme/x") == ("public.ecr.aws/acme/x", "acme/x")
    assert as_written("quay.io/repository/x") == ("quay.io/repository/x", "repository/x")
    assert as_written("docker.io/acme/x") == ("docker.io/acme/x", "acme/x")


def test_a_name_on_a_page_is_held_to_the_grammar_of_names() -> None:
    with pytest.raises(ImageNameError, match="not an image name"):
        parse_upstream("https://quay.io/repository/acme/x%20y")


@pytest.mark.parametrize(
    ("host", "label"),
    [
        ("docker.io", "Docker Hub"),
        ("eu.gcr.io", "Google Artifact Registry"),
        ("europe-west3-docker.pkg.dev", "Google Artifact Registry"),
        (ECR, "Amazon ECR"),
        ("public.ecr.aws", "Amazon ECR Public"),
        ("acme.azurecr.io", "Azure Container Registry"),
    ],
)
def test_a_host_is_known_for_its_registry(host: str, label: str) -> None:
    found = find(host)
    assert found is not None
    assert found.label == label


@pytest.mark.parametrize("host", ["evil-gcr.io", "ghcr.io.example", "azurecr.io", "reg.acme.example", "localhost"])
def test_a_host_that_only_looks_like_one_is_not(host: str) -> None:
    assert find(host) is None
    assert asked(host) == host


@pytest.mark.parametrize("host", ["docker.io", "index.docker.io", "registry.hub.docker.com", "hub.docker.com"])
def test_docker_hub_speaks_under_one_name(host: str) -> None:
    assert parse_registry(host) == asked(host) == "registry-1.docker.io"


@pytest.mark.parametrize(
    ("host", "query", "sent"),
    [
        ("public.ecr.aws", "n=10000", "n=1000"),
        ("public.ecr.aws", "last=a&n=0001001", "last=a&n=1000"),
        (ECR, "n=" + "9" * 5000, "n=1000"),
        (ECR, "n=1000&last=b", "n=1000&last=b"),
        (ECR, "n=0007", "n=0007"),
        (ECR, "when=2000&in=2000&n=&n=x", "when=2000&in=2000&n=&n=x"),
        ("ghcr.io", "n=10000", "n=10000"),
        ("reg.acme.example", "n=10000", "n=10000"),
    ],
)
def test_a_registry_is_asked_for_no_more_tags_than_it_bears(host: str, query: str, sent: str) -> None:
    assert paged(host, query) == sent


def test_rows_are_whole() -> None:
    hosts = [host for row in REGISTRIES for host in row.hosts + row.called]
    assert len(hosts) == len(set(hosts))
    for row in REGISTRIES:
        assert row.login in ("bearer", "basic")
        for page in row.pages:
            holes = set(re.findall(r"\{(\w+)\}", page.image))
            assert holes <= set(re.compile(page.address).groupindex), page
