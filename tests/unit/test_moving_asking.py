"""Asking two registries: what is asked, how often, and with how much patience. The registries say what a test tells
them to."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests.support.upstream import RawUpstream, sized

from waypost.artifacts.oci import digest_of
from waypost.artifacts.reference import ImageName
from waypost.moving.asking import AT_ONCE, LONGEST_WAIT, Registries, inquire
from waypost.stores.store import InUse, Used
from waypost.upstream.client import Client
from waypost.upstream.declared import Declared, by_host
from waypost.upstream.upstreams import Upstreams

A, B = (f"sha256:{letter * 64}" for letter in "ab")
INDEX, MANIFEST = (
    b"Content-Type: application/vnd.oci.image.index.v1+json",
    b"Content-Type: application/vnd.oci.image.manifest.v1+json",
)
OLD, NEW = ImageName("old.example", "x"), ImageName("new.example", "y/z")


def answers(body, *lines, status=b"200 OK"):
    """RFC 9110 section 9.3.2: to HEAD the same, without the body."""
    raw = sized(body, *lines, status=status)

    def script(connection, head):
        connection.sendall(raw[: -len(body)] if body and head.startswith(b"HEAD") else raw)
        return True

    return script


def has(digest, kind=MANIFEST, body=b""):
    return answers(body, b"Docker-Content-Digest: " + digest.encode(), kind)


def tagged(*tags, link=""):
    lines = [f"Link: {link}".encode()] if link else []
    return answers(json.dumps({"name": "x", "tags": tags}).encode(), *lines)


NONE = answers(b"{}", status=b"404 Not Found")


class Asked:
    """An inquiry, and what became of it: `rows`, what each registry was asked, and how long was waited."""

    def __init__(self, old, new, in_use=None):
        self.progress, self.waited = [], []
        places = {"old.example": RawUpstream({"/": NONE, **old}), "new.example": RawUpstream({"/": NONE, **new})}
        self.places = places
        try:
            self.comparison = asyncio.run(self._inquire(in_use or InUse([], {})))
        finally:
            for place in places.values():
                place.close()
        self.rows = {row.reference: row.state for row in self.comparison.rows}

    async def _inquire(self, in_use):
        account = {"username": "acme", "password_env": "MOVING_PASSWORD"}
        declared = by_host(Declared(host=host, connect=place.url, **account) for host, place in self.places.items())
        upstreams = Upstreams(Client(declared))

        async def sleep(seconds):
            self.waited.append(seconds)

        try:
            return await inquire(
                Registries(upstreams, sleep), OLD, NEW, in_use, lambda done, total: self.progress.append((done, total))
            )
        finally:
            await upstreams.close()

    def asked(self, host):
        return [" ".join(head.decode().split(" ", 2)[:2]) for head in self.places[host].heads]


def used(*references, digest=None):
    return [Used(reference, digest, 1, 1) for reference in references]


def test_tags_are_compared_by_head():
    found = Asked(
        {"/v2/x/tags": tagged("1", "2"), "/v2/x/manifests/1": has(A), "/v2/x/manifests/2": has(A)},
        {"/v2/y/z/manifests/1": has(A), "/v2/y/z/manifests/2": has(B)},
    )
    assert found.rows == {"1": "same", "2": "different"}
    assert sorted(found.asked("new.example")) == ["HEAD /v2/y/z/manifests/1", "HEAD /v2/y/z/manifests/2"]
    assert found.asked("old.example")[0] == "GET /v2/x/tags/list?n=1000"
    assert found.progress[-1] == (4, 4)


def test_all_pages_of_tags():
    found = Asked(
        {
            "/v2/x/tags/list?n=1000": tagged("1", link='</v2/x/tags/list?last=1&n=1000>; rel="next"'),
            "/v2/x/tags/list?last=1": tagged("2", link="<https://old.example/v2/x/tags/list?last=2>; rel=next"),
            "/v2/x/tags/list?last=2": tagged("not a tag", "3"),
        },
        {},
    )
    assert list(found.rows) == ["1", "2", "not a tag", "3"]
    assert set(found.rows.values()) == {"gone"}


def test_what_an_index_in_use_lists_is_asked_for_too():
    old = {"/v2/x/manifests/1": has(A, INDEX), "/v2/x/manifests/2": has(B, INDEX), f"/v2/x/manifests/{B}": has(B)}
    new = {"/v2/y/z/manifests/1": has(A, INDEX), "/v2/y/z/manifests/2": has(B, INDEX)}
    child = f"HEAD /v2/y/z/manifests/{B}"
    found = Asked(old, new, InUse(used("1"), {A: [B]}))
    assert found.rows == {"1": "missing"}
    assert found.asked("new.example") == ["HEAD /v2/y/z/manifests/1", child]
    assert found.progress[-1] == (3, 3)
    found = Asked(old, new | {f"/v2/y/z/manifests/{B}": has(B)}, InUse(used("1"), {A: [B]}))
    assert found.rows == {"1": "same"}
    # Of what nobody uses the index alone is compared.
    found = Asked(old | {"/v2/x/tags": tagged("1")}, new, InUse([], {A: [B]}))
    assert found.rows == {"1": "same"}


def test_an_index_that_nobody_pulled_yet_is_read():
    body = json.dumps({"schemaVersion": 2, "manifests": [{"digest": A}, {"digest": B}]}).encode()
    top = digest_of(body)
    old = {"/v2/x/manifests/1": has(top, INDEX), f"/v2/x/manifests/{B}": has(B)}
    new = {"/v2/y/z/manifests/1": has(top, INDEX), f"/v2/y/z/manifests/{top}": has(top, INDEX, body)}
    found = Asked(old, new, InUse(used("1"), {}))
    assert (found.rows, found.comparison.rows[0].why) == ({"1": "missing"}, f"it lists {B}, which is not there")
    broken = new | {f"/v2/y/z/manifests/{top}": NONE}
    assert Asked(old, broken, InUse(used("1"), {})).rows == {"1": "unknown"}


def test_a_registry_that_names_no_digest_is_asked_for_the_bytes():
    unnamed = answers(b'{"schemaVersion":2}', MANIFEST)
    found = Asked({"/v2/x/manifests/1": unnamed}, {"/v2/y/z/manifests/1": unnamed}, InUse(used("1"), {}))
    assert found.rows == {"1": "same"}
    assert found.comparison.rows[0].new == digest_of(b'{"schemaVersion":2}')


def busy(times, then, *lines):
    """Asks to come back later, so many times."""
    left = [times]

    def script(connection, head):
        left[0] -= 1
        if left[0] < 0:
            return then(connection, head)
        connection.sendall(sized(b"", *lines, status=b"429 Too Many Requests"))
        return True

    return script


def test_retry_after_is_waited_for():
    new = {"/v2/y/z/manifests/1": busy(2, has(A), b"Retry-After: 7")}
    found = Asked({"/v2/x/manifests/1": has(A)}, new, InUse(used("1"), {}))
    assert (found.rows, found.waited) == ({"1": "same"}, [7.0, 7.0])


def test_who_wants_us_back_too_late_is_not_asked_again():
    tags = [str(number) for number in range(50)]
    late = busy(1000, NONE, b"Retry-After: %d" % (LONGEST_WAIT + 1))
    found = Asked({"/v2/x/tags": tagged(*tags), "/v2/x/manifests": has(A)}, {"/v2/y/z/manifests": late})
    assert (set(found.rows.values()), found.waited) == ({"unknown"}, [])
    assert len(found.asked("new.example")) <= AT_ONCE
    assert found.comparison.rows[0].why.endswith("its registry limits how often it is asked, for 121 s")


@pytest.mark.parametrize("status", [b"401 Unauthorized", b"403 Forbidden", b"500 Oops"])
def test_what_is_not_answered_is_unknown(status):
    refusing = answers(b"", status=status)
    old = {"/v2/x/tags": tagged("1"), "/v2/x/manifests": has(A)}
    found = Asked(old, {"/v2/y/z": refusing})
    assert found.rows == {"1": "unknown"}
    found = Asked({"/v2/x": refusing}, {"/v2/y/z": has(A)}, InUse(used("1", digest=A), {}))
    assert found.rows == {"1": "same"}  # as it was pulled last
    (problem,) = found.comparison.problems
    assert problem.startswith("the tags of the old upstream are not known: ")


def test_the_operators_account_opens_what_is_private(monkeypatch):
    monkeypatch.setenv("MOVING_PASSWORD", "secret")
    challenge = answers(b"", b'WWW-Authenticate: Basic realm="r"', status=b"401 Unauthorized")

    def private(connection, head):
        let_in = b"Authorization: Basic YWNtZTpzZWNyZXQ=" in head
        return (has(A) if let_in else challenge)(connection, head)

    old, new = {"/v2/x/manifests/1": private}, {"/v2/y/z/manifests/1": private}
    assert Asked(old, new, InUse(used("1"), {})).rows == {"1": "same"}
    monkeypatch.setenv("MOVING_PASSWORD", "")
    assert Asked(old, new, InUse(used("1"), {})).rows == {"1": "unknown"}


def test_a_repository_that_is_gone_has_no_tags_and_is_no_problem():
    found = Asked({}, {"/v2/y/z/manifests/1": has(A)}, InUse(used("1", digest=A), {}))
    assert (found.rows, found.comparison.problems) == ({"1": "same"}, ())
