"""The stand-ins for registries keep their images to who may have them: one that lets everybody in proves nothing."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping

import pytest
from tests.clients import registries
from tests.clients.registries import Image
from tests.support.manners import MANNERS
from tests.support.standins import StandIn

from waypost.upstream.challenge import parse_challenges

NAMES = list(MANNERS)
BEARER = [name for name, manner in MANNERS.items() if manner.realm]


@pytest.fixture(scope="module")
def image() -> Image:
    return registries.multi_arch("skates", size=100)


@pytest.fixture
def standin(request: pytest.FixtureRequest, image: Image) -> Iterator[StandIn]:
    one = StandIn(MANNERS[request.param])
    one.publish("acme/secret", image, "1.0", private=True)
    one.publish("acme/open", image, "1.0")
    yield one
    one.close()


def ask(
    standin: StandIn, url: str, authorization: str = "", form: Mapping[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Asks for an https URL of the registry or its realm, where the stand-in really is."""
    parts = urllib.parse.urlsplit(url)
    real = standin.connect[parts.netloc] + parts._replace(scheme="", netloc="").geturl()
    body = urllib.parse.urlencode(form).encode() if form else None
    request = urllib.request.Request(real, body, {"Host": parts.netloc})
    if authorization:
        request.add_header("Authorization", authorization)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, {name.lower(): value for name, value in error.headers.items()}, error.read()


def manifest(standin: StandIn, repository: str, authorization: str = "") -> tuple[int, dict[str, str], bytes]:
    return ask(standin, f"https://{standin.manner.host}/v2/{repository}/manifests/1.0", authorization)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def token_url(standin: StandIn, repository: str) -> str:
    """Where the challenge to a request without token leads."""
    status, headers, _ = manifest(standin, repository)
    assert status == 401
    (challenge,) = parse_challenges([headers["www-authenticate"]])
    assert challenge.scheme == "bearer"
    query = urllib.parse.urlencode(
        {"service": challenge.parameters["service"], "scope": f"repository:{repository}:pull"}
    )
    return f"{challenge.parameters['realm']}?{query}"


def bearer(standin: StandIn, body: bytes) -> str:
    granted = json.loads(body)
    assert set(granted) - {"refresh_token"} == set(standin.manner.grant)
    return f"Bearer {granted[standin.manner.grant[0]]}"


@pytest.mark.parametrize("standin", BEARER, indirect=True)
def test_an_account_gets_a_token_for_its_private_image(standin: StandIn, image: Image) -> None:
    status, _, body = ask(standin, token_url(standin, "acme/secret"), basic(standin.user, standin.password))
    assert status == 200
    token = bearer(standin, body)
    status, headers, body = manifest(standin, "acme/secret", token)
    assert (status, headers["docker-content-digest"]) == (200, image.top)
    # The token is for what its scope names, save where scopes name nothing.
    if "{name}" in standin.manner.scope:
        assert manifest(standin, "acme/open", token)[0] == standin.manner.denied[0]
    standin.revoke()
    stale = standin.manner.stale
    assert manifest(standin, "acme/secret", token)[0] == (stale[0] if stale else 401)


@pytest.mark.parametrize("standin", BEARER, indirect=True)
def test_others_are_refused(standin: StandIn) -> None:
    url = token_url(standin, "acme/secret")
    for wrong in (basic(standin.user, "wrong"), basic("somebody", standin.password)):
        assert ask(standin, url, wrong)[0] == standin.manner.wrong[0]
    status, _, body = ask(standin, url)
    if standin.manner.ungranted:
        assert status == standin.manner.ungranted[0]
    else:
        assert manifest(standin, "acme/secret", bearer(standin, body))[0] == standin.manner.denied[0]


@pytest.mark.parametrize("standin", [name for name in BEARER if MANNERS[name].posts], indirect=True)
def test_the_form_of_oauth_2_is_understood(standin: StandIn) -> None:
    url = token_url(standin, "acme/secret")
    realm, _, query = url.partition("?")
    form = {**dict(urllib.parse.parse_qsl(query)), "client_id": "test", "access_type": "offline"}
    password = {"grant_type": "password", "username": standin.user, "password": standin.password}
    status, _, body = ask(standin, realm, form={**form, **password})
    assert status == 200
    assert manifest(standin, "acme/secret", bearer(standin, body))[0] == 200
    refresh = {"grant_type": "refresh_token", "refresh_token": json.loads(body)["refresh_token"]}
    status, _, body = ask(standin, realm, form={**form, **refresh})
    assert status == 200
    assert manifest(standin, "acme/secret", bearer(standin, body))[0] == 200
    for wrong in ({**password, "password": "wrong"}, {**refresh, "refresh_token": "wrong"}):
        assert ask(standin, realm, form={**form, **wrong})[0] == standin.manner.wrong[0]


@pytest.mark.parametrize("standin", [name for name in NAMES if not MANNERS[name].realm], indirect=True)
def test_basic_is_for_the_account_alone(standin: StandIn) -> None:
    status, headers, _ = manifest(standin, "acme/secret")
    assert status == 401
    assert headers["www-authenticate"].startswith("Basic ")
    assert manifest(standin, "acme/secret", basic(standin.user, standin.password))[0] == 200
    assert manifest(standin, "acme/secret", basic(standin.user, "wrong"))[0] == standin.manner.wrong[0]
    assert manifest(standin, "acme/secret", basic("somebody", standin.password))[0] == 401
    before = standin.password
    standin.revoke()
    assert manifest(standin, "acme/secret", basic(standin.user, before))[0] == 403
    assert manifest(standin, "acme/secret", basic(standin.user, standin.password))[0] == 200


@pytest.mark.parametrize("standin", NAMES, indirect=True)
def test_the_storage_refuses_tokens_and_strangers(standin: StandIn, image: Image) -> None:
    if standin.manner.realm:
        _, _, body = ask(standin, token_url(standin, "acme/secret"), basic(standin.user, standin.password))
        authorization = bearer(standin, body)
    else:
        authorization = basic(standin.user, standin.password)
    digest, content = next(iter(image.blobs.items()))
    url = f"https://{standin.manner.host}/v2/acme/secret/blobs/{digest}"
    # urllib follows redirects, and takes Authorization along, as a careless client would.
    status, _, body = ask(standin, url, authorization)
    if standin.manner.moved and not standin.manner.at_home:
        assert status == 400
    else:
        assert (status, body) == (200, content)
    assert ask(standin, url)[0] == 401
    if standin.manner.at_home:
        assert ask(standin, f"https://{standin.manner.host}/artifacts-downloads/{digest}")[0] == 403
