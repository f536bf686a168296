"""Which requests of git are a clone or a fetch."""

from __future__ import annotations

from typing import Any

import pytest

from waypost.artifacts.git import KIND, GitRow, GitSite, read
from waypost.artifacts.kind import DeclarationError, HostPolicy, Package
from waypost.routing.decision import Redirect, Refuse
from waypost.routing.request import Request

UPLOAD = "service=git-upload-pack"


def ask(path: str, query: str | None = UPLOAD, method: str = "GET") -> Any:
    site = GitSite(
        [GitRow("code", ("https://git.example/acme",), "acme")], HostPolicy("https://code.acme.example"), read
    )
    return site.decide(Request(method, "code.acme.example", path, query))


@pytest.mark.parametrize(
    ("path", "repository"),
    [
        ("/skates.git/info/refs", "skates"),
        ("/skates/info/refs", "skates"),
        ("/team/Rocket%20Skates.git/info/refs", "team/Rocket Skates"),
    ],
)
def test_a_clone_or_fetch(path: str, repository: str) -> None:
    redirect = ask(path)
    assert isinstance(redirect, Redirect)
    # git goes on at what is before "/info/refs?service=…", so that must be kept to the letter.
    assert redirect.location == f"https://git.example/acme{path}?{UPLOAD}"
    (fact,) = redirect.facts
    assert (fact.kind, fact.package, fact.artifact, fact.version) == ("binary-download", "code", repository, None)


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/skates.git/info/refs", None),
        ("/skates.git/info/refs", "service=git-other"),
        ("/skates.git/HEAD", None),
        ("/skates.git/objects/info/packs", UPLOAD),
        ("/info/refs", UPLOAD),
        ("/.git/info/refs", UPLOAD),
    ],
)
def test_what_is_none_is_led_on(path: str, query: str | None) -> None:
    redirect = ask(path, query)
    assert isinstance(redirect, Redirect)
    assert redirect.facts == ()


def test_looking_is_none() -> None:
    assert ask("/skates.git/info/refs", method="HEAD").facts == ()


@pytest.mark.parametrize(
    ("path", "query", "method", "status"),
    [
        ("/skates.git/info/refs", "service=git-receive-pack", "GET", 403),
        ("/skates.git/git-receive-pack", None, "POST", 403),
        ("/skates.git/git-upload-pack", None, "POST", 405),
        ("/../x.git/info/refs", UPLOAD, "GET", 404),
    ],
)
def test_what_is_refused(path: str, query: str | None, method: str, status: int) -> None:
    answer = ask(path, query, method)
    assert isinstance(answer, Refuse)
    assert answer.status == status


def test_git_cannot_pass_through() -> None:
    assert KIND.declare is not None
    (row,) = KIND.declare(Package(type="git", name="code", upstream="https://git.example/acme/"))
    assert row == GitRow("code", ("https://git.example/acme",))
    with pytest.raises(DeclarationError, match="proxy"):
        KIND.declare(Package(type="git", name="code", upstream="https://git.example/acme", proxy=True))
