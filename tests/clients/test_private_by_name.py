"""Private images of every registry that has a name, as its stand-in behaves: users' logins, and the operator's account.

Stand-ins are not the real ones: see tests/support/manners.py for what they go by.
"""

from __future__ import annotations

import contextlib
import json
import urllib.parse
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.clients import registries
from tests.clients.pulls import Waypost, native_blobs, run
from tests.clients.registries import Image
from tests.support.manners import MANNERS
from tests.support.standins import StandIn

from waypost.upstream.challenge import parse_challenges

ACCEPT = f"{registries.INDEX}, {registries.MANIFEST}"
OWN = "own.example"
CONFIG = f"""
base_domain = "waypost.example"
owner = "acme"
[[domain]]
host = "127.0.0.1"
login = "pass-through"
login_upstream = "ghcr.io"
[[domain]]
host = "{OWN}"
"""
PACKAGE = """
[[package]]
type = "container"
name = "{name}/private"
domains = ["127.0.0.1", "{own}"]
upstream = "{upstream}"
"""
UPSTREAM = '[[upstream]]\nhost = "{}"\nconnect = "{}"\n'
ACCOUNT = 'username = "{}"\npassword_file = "{}"\n'


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
        standin.publish(standin.repository, made[name], "1.0", private=True)
    made["chart"] = registries.chart()
    standins["ghcr"].publish(standins["ghcr"].repository, made["chart"], "1.2.0", private=True)
    return made


@pytest.fixture(scope="module")
def waypost(
    standins: dict[str, StandIn], images: dict[str, Image], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Waypost]:
    config, secrets = CONFIG, tmp_path_factory.mktemp("secrets")
    for name, standin in standins.items():
        config += PACKAGE.format(name=name, own=OWN, upstream=standin.manner.written)
        (secrets / name).write_text(standin.password)
        for host, url in standin.connect.items():
            config += UPSTREAM.format(host, url)
            if host == standin.manner.host:
                config += ACCOUNT.format(standin.user, secrets / name)
    started = Waypost(tmp_path_factory.mktemp("waypost"), config)
    yield started
    assert started.server.stop() == 0
    kept = [path for path in started.server.folder.rglob("*") if path.is_file()]
    assert kept
    for path in kept:
        assert not any(standin.password.encode() in path.read_bytes() for standin in standins.values()), path


@pytest.fixture(params=list(MANNERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def standin(standins: dict[str, StandIn], name: str) -> StandIn:
    for one in standins.values():
        one.asked.clear()
    return standins[name]


def basic(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def log_in(waypost: Waypost, name: str, authorization: str) -> tuple[int, bytes]:
    """What our token endpoint says, found as clients find it."""
    status, headers, _ = waypost.ask(f"/v2/{name}/private/manifests/1.0", Accept=ACCEPT)
    assert status == 401
    (challenge,) = parse_challenges([headers["www-authenticate"]])
    query = urllib.parse.urlencode({key: challenge.parameters[key] for key in ("service", "scope")})
    realm = urllib.parse.urlsplit(challenge.parameters["realm"])
    assert realm.netloc == waypost.address
    status, _, body = waypost.ask(f"{realm.path}?{query}", Authorization=authorization)
    return status, body


def test_a_user_pulls_with_an_account_of_the_registrys(
    waypost: Waypost, standins: dict[str, StandIn], standin: StandIn, name: str, images: dict[str, Image]
) -> None:
    image = images[name]
    status, body = log_in(waypost, name, basic(standin.user, standin.password))
    assert status == 200
    shown = f"Bearer {json.loads(body)['token']}"
    for reference in ("1.0", *image.manifests):
        status, headers, body = waypost.ask(
            f"/v2/{name}/private/manifests/{reference}", Accept=ACCEPT, Authorization=shown
        )
        digest = image.top if reference == "1.0" else reference
        assert (status, headers["docker-content-digest"], body) == (200, digest, image.manifests[digest][1])
    for digest, content in image.blobs.items():
        status, headers, body = waypost.ask(f"/v2/{name}/private/blobs/{digest}", Authorization=shown)
        if standin.manner.moved and not standin.manner.at_home:
            assert status == 307
            with urllib.request.urlopen(headers["location"], timeout=20) as answer:
                body = answer.read()
        assert body == content
    # The password went to this registry's realm, or to the registry itself if it wants Basic; and to no other.
    bare = [line for one in standins.values() for line in one.asked if line.endswith(" Basic")]
    assert bare
    realm = urllib.parse.urlsplit(standin.manner.realm)
    for line in bare:
        _, host, path, _ = line.split()
        assert host == (realm.netloc or standin.manner.host)
        assert not realm.path or path.startswith(realm.path)
    assert not any(one.asked for other, one in standins.items() if other != name)


def test_others_are_refused(waypost: Waypost, standin: StandIn, name: str) -> None:
    for wrong in (basic(standin.user, "wrong"), basic("somebody", standin.password)):
        status, body = log_in(waypost, name, wrong)
        assert status == 401
        assert json.loads(body)["errors"][0]["code"] == "UNAUTHORIZED"
    status, _, _ = waypost.ask(f"/v2/{name}/private/manifests/1.0", Accept=ACCEPT, Authorization="Bearer x")
    assert status == 401


def test_skopeo_pulls_with_credentials(
    waypost: Waypost, standin: StandIn, name: str, home: dict[str, str], images: dict[str, Image]
) -> None:
    image, target = images[name], Path(home["HOME"]) / "copied"
    source = ("--src-tls-verify=false", f"docker://{waypost.address}/{name}/private:1.0", f"dir:{target}")
    assert "unauthorized" in run(home, "skopeo", "copy", *source, status=1)
    assert "unauthorized" in run(home, "skopeo", "copy", "--src-creds", f"{standin.user}:wrong", *source, status=1)
    run(home, "skopeo", "copy", "--src-creds", f"{standin.user}:{standin.password}", *source)
    assert (target / "manifest.json").read_bytes() == image.manifests[image.native][1]
    for digest in native_blobs(image):
        assert (target / digest.removeprefix("sha256:")).read_bytes() == image.blobs[digest]


# oras, helm and crane log in without naming an image: at the domain's `login_upstream`. oras and helm then want a chart.


def test_oras_logs_in_and_pulls(
    waypost: Waypost, standins: dict[str, StandIn], home: dict[str, str], images: dict[str, Image], oras: str
) -> None:
    ghcr, chart, target = standins["ghcr"], images["chart"], Path(home["HOME"]) / "pulled"
    pull = (oras, "pull", "--plain-http", "-o", str(target), f"{waypost.address}/ghcr/private:1.2.0")
    assert "unauthorized" in run(home, *pull, status=1)
    login = (oras, "login", "--plain-http", waypost.address, "-u", ghcr.user, "-p")
    assert "unauthorized" in run(home, *login, "wrong", status=1)
    run(home, *login, ghcr.password)
    run(home, *pull)
    assert (target / "skates-1.2.0.tgz").read_bytes() in chart.blobs.values()


def test_helm_logs_in_and_pulls(
    waypost: Waypost, standins: dict[str, StandIn], home: dict[str, str], images: dict[str, Image], helm: str
) -> None:
    ghcr, chart = standins["ghcr"], images["chart"]
    pull = (helm, "pull", f"oci://{waypost.address}/ghcr/private", "--version", "1.2.0", "--plain-http")
    assert "unauthorized" in run(home, *pull, "-d", home["HOME"], status=1)
    login = (helm, "registry", "login", "--plain-http", waypost.address, "-u", ghcr.user, "-p")
    assert "unauthorized" in run(home, *login, "wrong", status=1)
    run(home, *login, ghcr.password)
    run(home, *pull, "-d", home["HOME"])
    # It calls a chart what the image is called.
    assert (Path(home["HOME"]) / "private-1.2.0.tgz").read_bytes() in chart.blobs.values()


@pytest.mark.long
def test_crane_logs_in_and_asks(
    waypost: Waypost, standins: dict[str, StandIn], home: dict[str, str], images: dict[str, Image], crane: str
) -> None:
    ghcr, digest = standins["ghcr"], (crane, "digest", f"{waypost.address}/ghcr/private:1.0")
    assert "UNAUTHORIZED" in run(home, *digest, status=1)
    run(home, crane, "auth", "login", waypost.address, "-u", ghcr.user, "-p", ghcr.password)
    assert run(home, *digest).strip() == images["ghcr"].top


def test_the_operators_account_publishes_what_has_a_package(
    waypost: Waypost, standin: StandIn, name: str, images: dict[str, Image]
) -> None:
    image = images[name]
    status, headers, body = waypost.server.get(OWN, f"/v2/{name}/private/manifests/1.0", headers={"Accept": ACCEPT})
    assert (status, headers["Docker-Content-Digest"], body) == (200, image.top, image.manifests[image.top][1])
    digest, content = next(iter(image.blobs.items()))
    status, headers, body = waypost.server.get(OWN, f"/v2/{name}/private/blobs/{digest}")
    if standin.manner.moved and not standin.manner.at_home:
        assert status == 307
        with urllib.request.urlopen(headers["Location"], timeout=20) as answer:
            body = answer.read()
    assert body == content
