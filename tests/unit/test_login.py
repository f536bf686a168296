"""Domains whose users log in, without a socket: what /token asks whom, and what a token opens."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.artifacts.container import ContainerRow, ContainerSite, PatternRow
from waypost.artifacts.kind import HostPolicy
from waypost.artifacts.token import LONGEST, Token, seal, unseal
from waypost.routing.decision import Basic, Fetch, Login, RefreshToken, Refuse, Reply, UpstreamHead
from waypost.routing.request import Request

HOST = "docker.acme.example"
ROWS = [
    ContainerRow("acme/skates", "ghcr.io", "team/long-name", "acme/skates", "acme"),
    ContainerRow("acme/boots", "quay.io", "acme/boots", "acme/boots", "acme"),
    ContainerRow("acme/twice", "ghcr.io", "a/twice", "acme/twice", others=(("quay.io", "b/twice"), ("ghcr.io", "c/twice"))),
    PatternRow("col/*", "ghcr.io", "acme"),
]  # fmt: skip
SITE = ContainerSite(ROWS, HostPolicy(f"https://{HOST}", "pass-through", "ghcr.io"))
ME = Basic("me", "pass:word")
LATER = 4_000_000_000


def ask(
    path: str, headers: Sequence[tuple[str, str]] = (), method: str = "GET", query: str = "", body: Any = b""
) -> Any:
    content = body if isinstance(body, bytes) else urlencode(body).encode()
    return SITE.decide(Request(method, HOST, path, query or None, headers, content))


def token(query: str = "", credentials: Basic | None = ME) -> Any:
    headers = [("authorization", credentials.header())] if credentials else []
    return ask("/token", headers, query=query)


def with_token(path: str, shown: Token, method: str = "GET") -> Any:
    return ask(path, [("authorization", f"Bearer {seal(shown)}")], method)


def opened(reply: Any) -> Token:
    assert isinstance(reply, Reply), reply
    body = json.loads(reply.body)
    assert body["token"] == body["access_token"]
    read = unseal(f"Bearer {body['token']}")
    assert read is not None
    return read


def challenge(answer: Any) -> str:
    assert isinstance(answer, Refuse)
    assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
    return dict(answer.headers)["WWW-Authenticate"]


SKATES = Token("ghcr.io", ("team/long-name",), "Bearer up", LATER)


# Challenges


def test_the_ping_asks_for_a_login() -> None:
    assert challenge(ask("/v2/")) == f'Bearer realm="https://{HOST}/token",service="{HOST}"'
    assert challenge(ask("/v2/", [("authorization", "Bearer somebody-elses")])) == challenge(ask("/v2/"))


@pytest.mark.parametrize("name", ["acme/skates", "acme/nobody-knows"])
def test_nobody_learns_without_a_token_which_images_there_are(name: str) -> None:
    wanted = f'Bearer realm="https://{HOST}/token",service="{HOST}",scope="repository:{name}:pull"'
    assert challenge(ask(f"/v2/{name}/manifests/1")) == wanted


def test_what_is_no_name_is_told_at_once() -> None:
    assert ask("/v2/NO/manifests/1").code == "NAME_INVALID"
    assert ask("/v2/acme/skates/manifests/1", method="PUT").status == 405


# /token


def test_a_scope_names_the_registry_that_is_asked() -> None:
    for query, registry, scopes in (
        ("scope=repository:acme/skates:pull", "ghcr.io", ("repository:team/long-name:pull",)),
        ("scope=repository:acme/boots:push,pull", "quay.io", ("repository:acme/boots:pull",)),
        ("scope=repository(plugin):col/x:pull&service=x&account=me", "ghcr.io", ("repository:col/x:pull",)),
        ("scope=repository%3Aacme%2Fskates%3Apull+repository:col/y:pull", "ghcr.io", ("repository:team/long-name:pull", "repository:col/y:pull")),
        ("scope=repository:acme/twice:pull", "ghcr.io", ("repository:a/twice:pull", "repository:c/twice:pull")),
        # One registry is told, whatever else is asked for.
        ("scope=repository:acme/boots:pull&scope=repository:acme/skates:pull", "quay.io", ("repository:acme/boots:pull",)),
        ("scope=repository:acme/unknown:pull&scope=repository:acme/skates:pull", "ghcr.io", ("repository:team/long-name:pull",)),
        ("account=me&client_id=docker&offline_token=true&service=x", "ghcr.io", ()),
        ("scope=registry:catalog:*", "ghcr.io", ()),
    ):  # fmt: skip
        login = token(query)
        assert isinstance(login, Login), query
        assert (login.registry, login.scopes, login.credentials) == (registry, scopes, ME), query


def test_what_a_registry_grants_is_sealed_for_it_alone() -> None:
    login = token("scope=repository:acme/twice:pull")
    granted = opened(login.then(("Bearer up", 300.0)))
    assert (granted.registry, granted.repositories, granted.authorization) == (
        "ghcr.io",
        ("a/twice", "c/twice"),
        "Bearer up",
    )
    refused = login.then(None)
    assert (refused.status, refused.code) == (401, "UNAUTHORIZED")


def test_a_token_says_how_long_it_is_good_and_is_not_to_be_stored() -> None:
    reply = token("scope=repository:acme/skates:pull").then(("Bearer up", 300.0))
    body = json.loads(reply.body)
    assert body["expires_in"] == 300
    assert body["issued_at"].endswith("Z")
    assert "refresh_token" not in body
    assert ("Cache-Control", "no-store") in reply.headers
    # "a token should never be returned with less than 60 seconds to live"
    assert json.loads(token("scope=repository:acme/skates:pull").then(("Bearer up", 5.0)).body)["expires_in"] == 60


@pytest.mark.parametrize(
    ("form", "credentials"),
    [
        ({"grant_type": "password", "username": "me", "password": "pass:word"}, ME),
        ({"grant_type": "refresh_token", "refresh_token": "r e"}, RefreshToken("r e")),
    ],
)
@pytest.mark.parametrize("scope", ["repository:acme/boots:pull", ""])
def test_forms_are_read(form: dict[str, str], credentials: Any, scope: str) -> None:
    login = ask("/token", method="POST", body=form | {"service": "x", "client_id": "containerd", "scope": scope})
    assert isinstance(login, Login)
    assert login.credentials == credentials
    assert login.registry == ("quay.io" if scope else "ghcr.io")


def test_bytes_of_a_password_go_on_as_they_came() -> None:
    for raw in (b"\xff\xfe", "pässword".encode(), "pässword".encode("latin-1")):
        line = "Basic " + b64encode(b"me:" + raw).decode()
        login = ask("/token", [("authorization", line)])
        assert isinstance(login.credentials, Basic)
        assert login.credentials.header() == line
        form = b"grant_type=password&username=me&password=" + b"".join(b"%%%02X" % byte for byte in raw)
        assert ask("/token", method="POST", body=form).credentials.header() == line


@pytest.mark.parametrize(
    ("headers", "method", "body", "status"),
    [
        ([("authorization", "Basic !!!")], "GET", b"", 401),
        ([("authorization", "Basic " + b64encode(b"no colon").decode())], "GET", b"", 401),
        ([("authorization", "Bearer x")], "GET", b"", 401),
        ([("authorization", ME.header()), ("authorization", ME.header())], "GET", b"", 401),
        ([], "POST", b"grant_type=password&username=me", 401),
        ([], "POST", b"grant_type=refresh_token", 401),
        ([], "POST", b"grant_type=authorization_code&code=x", 400),
        ([], "POST", b"\xff%zz", 400),
        ([], "PUT", b"", 405),
    ],
)
def test_what_is_no_login_is_refused_here(headers: Any, method: str, body: bytes, status: int) -> None:
    answer = ask("/token", headers, method, query="scope=repository:acme/skates:pull", body=body)
    assert isinstance(answer, Refuse)
    assert answer.status == status


def test_who_sends_no_credentials_gets_a_token_that_holds_none() -> None:
    for query in ("", "scope=repository:acme/skates:pull", "scope=repository:acme/nobody-knows:pull"):
        assert opened(token(query, None)).authorization == ""
    fetch = with_token("/v2/acme/skates/manifests/1", opened(token("scope=repository:acme/skates:pull", None)))
    assert isinstance(fetch, Fetch)
    assert fetch.authorization is None
    # The operator's account would let in whoever asks.
    assert not fetch.published
    assert fetch.keep is not None
    assert not fetch.keep.private


def test_credentials_for_an_image_that_is_not_there_go_nowhere() -> None:
    granted = opened(token("scope=repository:acme/nobody-knows:pull"))
    assert granted.authorization == ""
    answer = with_token("/v2/acme/nobody-knows/manifests/1", granted)
    assert (answer.status, answer.code) == (404, "NAME_UNKNOWN")


# What a token opens


def test_a_token_goes_to_its_registry_as_it_is() -> None:
    for path in ("manifests/1", "blobs/sha256:" + "a" * 64, "tags/list", "referrers/sha256:" + "a" * 64):
        fetch = with_token(f"/v2/acme/skates/{path}", SKATES)
        assert isinstance(fetch, Fetch)
        assert fetch.authorization == "Bearer up"
        assert fetch.url.startswith("https://ghcr.io/v2/team/long-name/")
        assert all(name.lower() != "authorization" for name, _ in fetch.headers)


def test_private_manifests_are_kept_as_such() -> None:
    keep = with_token("/v2/acme/skates/manifests/1", SKATES).keep
    assert keep.private


@pytest.mark.parametrize(
    "shown",
    [
        Token("quay.io", ("team/long-name",), "Bearer up", LATER),
        Token("ghcr.io", ("team/other",), "Bearer up", LATER),
        Token("ghcr.io", (), "Bearer up", LATER),
    ],
)
def test_a_token_for_something_else_opens_nothing(shown: Token) -> None:
    assert 'error="insufficient_scope"' in challenge(with_token("/v2/acme/skates/manifests/1", shown))


def test_a_token_that_has_ended_opens_nothing() -> None:
    ended = Token("ghcr.io", ("team/long-name",), "Bearer up", 1000)
    assert challenge(with_token("/v2/acme/skates/manifests/1", ended))


def test_a_login_fails_over_within_its_registry_only() -> None:
    shown = Token("ghcr.io", ("a/twice", "c/twice"), "Bearer up", LATER)
    fetch = with_token("/v2/acme/twice/manifests/1", shown)
    assert [one.url.split("/manifests")[0] for one in (fetch, *fetch.others)] == [
        "https://ghcr.io/v2/a/twice",
        "https://ghcr.io/v2/c/twice",
    ]
    assert all(one.authorization == "Bearer up" for one in fetch.others)


def test_a_login_does_not_follow_to_other_hosts() -> None:
    fetch = with_token("/v2/acme/skates/manifests/1", SKATES)
    away = fetch.then(UpstreamHead(307, (("location", "https://elsewhere.example/v2/x/manifests/1"),)))
    assert isinstance(away, Fetch)
    assert away.authorization is None
    home = fetch.then(UpstreamHead(307, (("location", "/v2/moved/manifests/1"),)))
    assert isinstance(home, Fetch)
    assert home.authorization == "Bearer up"
    # And back again it is not picked up.
    assert away.then(UpstreamHead(307, (("location", "https://ghcr.io/v2/x/manifests/1"),))).authorization is None


def test_what_a_registry_refuses_is_told_as_a_login_that_does_not_help() -> None:
    nobody = opened(token("scope=repository:acme/skates:pull", None))
    for shown, status, expected in (
        (SKATES, 401, 401),
        (SKATES, 403, 403),
        (nobody, 401, 401),
        (nobody, 403, 401),
        (nobody, 404, 404),
    ):
        answer = with_token("/v2/acme/skates/manifests/1", shown).then(UpstreamHead(status, ()))
        assert answer.status == expected
        assert ("WWW-Authenticate" in dict(answer.headers)) == (expected == 401)
        assert "ghcr.io" not in answer.message


def test_the_ping_with_a_login_is_the_registrys_to_answer() -> None:
    login = opened(token("account=me").then(("Bearer up", 60.0)))
    fetch = with_token("/v2/", login)
    assert (fetch.url, fetch.authorization) == ("https://ghcr.io/v2/", "Bearer up")
    assert fetch.then(UpstreamHead(200, ())).status == 200
    assert challenge(fetch.then(UpstreamHead(401, ())))


def test_explain_says_where_users_log_in() -> None:
    request = Request("GET", HOST, "/v2/acme/boots/manifests/1")
    image, login = SITE.explain(request)
    assert "acme/boots on quay.io" in image
    assert "log in at quay.io" in login


# Sealing


@given(st.text(max_size=30), st.lists(st.text(max_size=30), max_size=3), st.text(max_size=50), st.integers(0, LATER))
def test_what_is_sealed_is_read_again(registry: str, repositories: list[str], authorization: str, until: int) -> None:
    given_out = Token(registry, tuple(repositories), authorization, until)
    read = unseal(f"Bearer {seal(given_out)}")
    clean = authorization.isascii() and authorization.isprintable()
    assert read == (given_out if clean else None)


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: "Bearer waypost1." + b64encode(raw).decode()))
def test_whatever_else_is_shown_says_nothing_that_could_break_a_line(text: str) -> None:
    read = unseal(text)
    assert read is None or (read.authorization.isascii() and read.authorization.isprintable())


def test_a_token_is_bounded() -> None:
    login = token("scope=repository:acme/skates:pull")
    assert login.then(("Bearer " + "a" * LONGEST, 60.0)).status == 502
    assert unseal("Bearer waypost1." + "A" * LONGEST) is None
    assert "Bearer" not in repr(SKATES)
