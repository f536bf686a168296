"""Every registry that has a name, as its stand-in behaves: pulls, lists and refusals through a running Waypost.

Stand-ins are not the real ones: see tests/support/manners.py for what they go by.
"""

from __future__ import annotations

import contextlib
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.clients import registries
from tests.clients.pulls import Waypost, native_blobs, run, upstreams
from tests.clients.registries import Image
from tests.support.manners import MANNERS
from tests.support.standins import StandIn

ACCEPT = f"{registries.INDEX}, {registries.MANIFEST}"
TAGS = [f"1.{minor}" for minor in range(7)]
# Amazon ECR has no image that anybody may pull.
PUBLIC = [name for name, manner in MANNERS.items() if manner.realm]
PACKAGE = """
[[package]]
type = "container"
name = "{name}/{kind}"
domain = "127.0.0.1"
upstream = "{upstream}"
"""
KINDS = {"public": "", "private": "-private", "unknown": "-unknown"}


@pytest.fixture(scope="module")
def standins() -> Iterator[dict[str, StandIn]]:
    with contextlib.ExitStack() as stack:
        started = {}
        for name, manner in MANNERS.items():
            started[name] = StandIn(manner)
            stack.callback(started[name].close)
        yield started


@pytest.fixture(scope="module")
def images(standins: dict[str, StandIn]) -> dict[str, Image]:
    made = {name: registries.multi_arch(name, size=1000) for name in MANNERS}
    for name, standin in standins.items():
        if name in PUBLIC:
            standin.publish(standin.repository, made[name], *TAGS)
        standin.publish(f"{standin.repository}-private", made[name], *TAGS, private=True)
    return made


@pytest.fixture(scope="module")
def waypost(
    standins: dict[str, StandIn], images: dict[str, Image], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Waypost]:
    config = 'base_domain = "waypost.example"\nowner = "acme"\n[containers]\ntag_ttl = 0\n'
    for name, standin in standins.items():
        for kind, suffix in KINDS.items():
            config += PACKAGE.format(name=name, kind=kind, upstream=standin.manner.written + suffix)
        config += upstreams(standin.connect)
    started = Waypost(tmp_path_factory.mktemp("waypost"), config)
    yield started
    started.server.stop()


@pytest.fixture(params=list(MANNERS))
def any_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=PUBLIC)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def standin(standins: dict[str, StandIn], name: str) -> Iterator[StandIn]:
    one = standins[name]
    one.asked.clear()
    yield one
    one.quota, one.retry_after = None, None


def fetched(url: str) -> bytes:
    """As a client fetches a layer that it was redirected to: without any token."""
    with urllib.request.urlopen(url, timeout=20) as answer:
        return answer.read()


def test_a_pull_takes_the_same_bytes(waypost: Waypost, standin: StandIn, name: str, images: dict[str, Image]) -> None:
    image = images[name]
    status, headers, body = waypost.ask(f"/v2/{name}/public/manifests/1.0", Accept=ACCEPT)
    assert (status, headers["docker-content-digest"]) == (200, image.top)
    assert body == image.manifests[image.top][1]
    status, headers, none = waypost.ask(f"/v2/{name}/public/manifests/1.0", "HEAD", Accept=ACCEPT)
    assert (status, headers["docker-content-digest"], none) == (200, image.top, b"")
    assert int(headers["content-length"]) == len(body)
    for digest in image.platforms:
        status, headers, body = waypost.ask(f"/v2/{name}/public/manifests/{digest}", Accept=ACCEPT)
        assert (status, headers["content-type"], body) == (200, *image.manifests[digest])
    for digest, content in image.blobs.items():
        status, headers, body = waypost.ask(f"/v2/{name}/public/blobs/{digest}")
        if standin.manner.moved and not standin.manner.at_home:
            assert status == 307
            body = fetched(headers["location"])
        else:
            # What a registry redirects to itself may want a token: that passes through us.
            assert status == 200
        assert body == content


def test_credentials_go_nowhere_but_to_the_registry(
    waypost: Waypost, standin: StandIn, name: str, images: dict[str, Image]
) -> None:
    waypost.ask(f"/v2/{name}/public/manifests/1.1", Accept=ACCEPT)
    for digest in images[name].blobs:
        waypost.ask(f"/v2/{name}/public/blobs/{digest}")
    for line in standin.asked:
        _, host, path, *scheme = line.split()
        assert scheme in ([], ["Bearer"]), line
        if host != standin.manner.host or path.startswith(urllib.parse.urlsplit(standin.manner.realm).path):
            assert scheme == [], f"a token went astray: {line}"
    questions = [line.split()[2] for line in standin.asked if "scope=" in line]
    for question in questions:
        asked = urllib.parse.parse_qs(urllib.parse.urlsplit(question).query)
        assert asked == {"service": [standin.manner.service], "scope": [f"repository:{standin.repository}:pull"]}


def test_a_list_of_tags_is_walked_page_by_page(waypost: Waypost, standin: StandIn, name: str) -> None:
    found: list[str] = []
    path = f"/v2/{name}/public/tags/list?n=3"
    for _ in range(3):
        status, headers, body = waypost.ask(path)
        assert status == 200
        listed = json.loads(body)
        assert listed["name"] == f"{name}/public"
        found += listed["tags"]
        link = re.fullmatch(r'<([^>]+)>; rel="next"', headers.get("link", ""))
        if link is None:
            break
        ours = urllib.parse.urlsplit(link[1])
        assert f"{ours.scheme}://{ours.netloc}{ours.path}" == f"http://{waypost.address}/v2/{name}/public/tags/list"
        path = f"{ours.path}?{ours.query}"
    assert found == TAGS
    # Some clients ask for all at once, and do not know which registry they ask.
    status, _, body = waypost.ask(f"/v2/{name}/public/tags/list?n=10000")
    assert (status, json.loads(body)["tags"]) == (200, TAGS)


def test_what_is_private_or_unknown_is_refused_in_the_registries_format(
    waypost: Waypost, standins: dict[str, StandIn], any_name: str, images: dict[str, Image]
) -> None:
    codes = {401: "UNAUTHORIZED", 403: "DENIED", 404: "MANIFEST_UNKNOWN"}
    for kind in ("private", "unknown"):
        status, headers, body = waypost.ask(f"/v2/{any_name}/{kind}/manifests/1.0", Accept=ACCEPT)
        assert status in codes, (kind, body)
        (error,) = json.loads(body)["errors"]
        assert error["code"] == codes[status]
        assert f"{any_name}/{kind}:1.0" in error["message"]
        # A challenge would make clients ask for a login that this domain has not.
        assert "www-authenticate" not in headers
    if any_name in PUBLIC:
        status, _, body = waypost.ask(f"/v2/{any_name}/public/manifests/none", Accept=ACCEPT)
        assert (status, json.loads(body)["errors"][0]["code"]) == (404, "MANIFEST_UNKNOWN")


def test_a_tag_costs_one_pull_however_often_it_is_confirmed(waypost: Waypost, standin: StandIn, name: str) -> None:
    standin.quota = 1
    for _ in range(2):
        assert waypost.ask(f"/v2/{name}/public/manifests/1.5", Accept=ACCEPT)[0] == 200
    # Two workers keep what they know on one disk.
    assert standin.quota == 0
    answered = "" if standin.manner.open else " Bearer"
    path = f"/v2/{standin.repository}/manifests/1.5{answered}"
    assert [line.split()[0] for line in standin.asked if line.endswith(path)] == ["GET", "HEAD"]


def test_tokens_that_the_registry_forgot_are_replaced(waypost: Waypost, standin: StandIn, name: str) -> None:
    for _ in range(4):  # both workers have one
        waypost.ask(f"/v2/{name}/public/tags/list")
    standin.revoke()
    for _ in range(4):
        assert waypost.ask(f"/v2/{name}/public/tags/list")[0] == 200


def test_skopeo_pulls(
    waypost: Waypost, standin: StandIn, name: str, home: dict[str, str], images: dict[str, Image]
) -> None:
    image, target = images[name], Path(home["HOME"]) / "copied"
    source = f"docker://{waypost.address}/{name}/public"
    run(home, "skopeo", "copy", "--src-tls-verify=false", f"{source}:1.6", f"dir:{target}")
    assert (target / "manifest.json").read_bytes() == image.manifests[image.native][1]
    for digest in native_blobs(image):
        assert (target / digest.removeprefix("sha256:")).read_bytes() == image.blobs[digest]
    listed = run(home, "skopeo", "list-tags", "--tls-verify=false", source)
    assert json.loads(listed)["Tags"] == TAGS


# The last one: a registry that says when to come back is left alone until then.
@pytest.mark.parametrize("retry_after", [None, "42"])
def test_a_quota_that_is_used_up_is_told(
    waypost: Waypost, standin: StandIn, name: str, retry_after: str | None
) -> None:
    standin.quota, standin.retry_after = 0, retry_after
    tag = "1.2" if retry_after else "1.3"
    status, headers, body = waypost.ask(f"/v2/{name}/public/manifests/{tag}", Accept=ACCEPT)
    assert (status, json.loads(body)["errors"][0]["code"]) == (429, "TOOMANYREQUESTS")
    assert headers.get("retry-after") == retry_after
    # What was pulled before goes on being pulled.
    standin.quota = 1
    assert waypost.ask(f"/v2/{name}/public/manifests/1.4", Accept=ACCEPT)[0] == 200
    standin.quota = 0
    status, headers, _ = waypost.ask(f"/v2/{name}/public/manifests/1.4", Accept=ACCEPT)
    assert status == 200
    assert "no-upstream-answers" in headers["cache-status"]
