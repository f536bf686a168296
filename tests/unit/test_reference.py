"""Names of images: what people paste, and the grammar of the distribution spec."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.artifacts.reference import (
    DOCKER_HUB,
    ImageName,
    ImageNameError,
    is_digest,
    is_name,
    is_tag,
    parse_registry,
    parse_upstream,
)

SHA256 = "sha256:" + "a" * 64
SHA512 = "sha512:" + "0" * 128


@pytest.mark.parametrize(
    ("written", "registry", "repository"),
    [
        ("rocket-skates", DOCKER_HUB, "library/rocket-skates"),
        ("acme/rocket-skates", DOCKER_HUB, "acme/rocket-skates"),
        ("a/b/c", DOCKER_HUB, "a/b/c"),
        ("docker.io/rocket-skates", DOCKER_HUB, "library/rocket-skates"),
        ("index.docker.io/acme/x", DOCKER_HUB, "acme/x"),
        ("registry.hub.docker.com/acme/x", DOCKER_HUB, "acme/x"),
        ("registry-1.docker.io/library/x", DOCKER_HUB, "library/x"),
        ("quay.io/acme/rocket-skates", "quay.io", "acme/rocket-skates"),
        ("GHCR.io/acme/x", "ghcr.io", "acme/x"),
        ("localhost/x", "localhost", "x"),
        ("localhost:5000/x", "localhost:5000", "x"),
        ("[::1]:5000/acme/x", "[::1]:5000", "acme/x"),
        ("acme/x:1.0", DOCKER_HUB, "acme/x"),
        (f"ghcr.io/acme/x:1.0@{SHA256}", "ghcr.io", "acme/x"),
        (f"acme/x@{SHA512}", DOCKER_HUB, "acme/x"),
        ("docker://quay.io/acme/x:latest", "quay.io", "acme/x"),
        ("oci://ghcr.io/charts/x", "ghcr.io", "charts/x"),
        ("docker pull acme/x", DOCKER_HUB, "acme/x"),
        ("$ sudo docker pull --platform linux/arm64 -q 'ghcr.io/acme/x:1'", "ghcr.io", "acme/x"),
        ("docker image pull --platform=linux/arm64 x", DOCKER_HUB, "library/x"),
        ("podman pull docker://quay.io/acme/x", "quay.io", "acme/x"),
        ("  acme/x  ", DOCKER_HUB, "acme/x"),
        ("https://hub.docker.com/_/redis", DOCKER_HUB, "library/redis"),
        ("hub.docker.com/r/acme/x/tags", DOCKER_HUB, "acme/x"),
        ("https://github.com/Acme/skates/pkgs/container/boots", "ghcr.io", "acme/boots"),
    ],
)
def test_upstream_as_users_know_it(written: str, registry: str, repository: str) -> None:
    assert parse_upstream(written) == ImageName(registry, repository)


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("", "neither"),
        ("Acme/x", "not an image name"),
        ("acme//x", "not an image name"),
        ("acme/x:", "not a tag"),
        ("acme/x:.a", "not a tag"),
        ("acme/x@sha256:abc", "not a digest"),
        ("https://dl.example/acme/x", "is a URL"),
        ("https://hub.docker.com/u/acme", "a page of Docker Hub, but not of one image"),
        ("quay.io.example/r/x y", "neither"),
        ("docker run acme/x", "neither"),
        ("docker pull", "no images"),
        ("docker pull a b", "2 images"),
        ("rm -rf pull x", "not known"),
        ("docker pull 'x", "quotation"),
        ("-bad-.example/x", "not a host name"),
        ("a" * 256, "not an image name"),
        ("acme/x_-y", "not an image name"),
    ],
)
def test_what_is_no_image_is_refused_with_a_sentence(written: str, says: str) -> None:
    with pytest.raises(ImageNameError, match=says):
        parse_upstream(written)


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("a", True),
        ("a__b", True),
        ("a___b", False),
        ("a--b", True),
        ("a.b", True),
        ("a..b", False),
        ("a-", False),
        ("-a", False),
        ("a/b", True),
        ("/a", False),
        ("a/", False),
        ("A", False),
        ("", False),
        ("a\n", False),
        ("ä", False),
        ("a" * 255, True),
        ("a" * 256, False),
    ],
)
def test_names(name: str, valid: bool) -> None:
    assert is_name(name) is valid


def test_tags_and_digests() -> None:
    assert is_tag("v1.0_x-Y")
    assert is_tag("a" * 128)
    assert not any(is_tag(tag) for tag in ("", ".a", "-a", "a" * 129, "a:b", "a\n", "a/b"))
    assert is_digest(SHA256)
    assert is_digest(SHA512)
    assert not any(
        is_digest(one)
        for one in (SHA256[:-1], SHA256 + "a", SHA256.upper(), "sha256:", "md5:" + "a" * 32, SHA256 + "\n")
    )


@pytest.mark.parametrize("host", ["a b", "x/y", "user@host", "host:", "host:port", "", "a..b", "x\r\n"])
def test_registries_are_hosts(host: str) -> None:
    with pytest.raises(ImageNameError):
        parse_registry(host)


@given(st.text(st.sampled_from("ab.:/@-_ []'\\\"sha256docker pull"), max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        image = parse_upstream(text)
    except ImageNameError:
        return
    assert is_name(image.repository)
    assert parse_registry(image.registry) == image.registry
