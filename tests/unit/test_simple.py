"""artifacts/simple.py: what a Python index of ours decides."""

from __future__ import annotations

import gzip
import json

import msgspec
import pytest

from waypost.artifacts.kind import DeclarationError, HostPolicy, Package
from waypost.artifacts.project_page import HTML, JSON, TEXT
from waypost.artifacts.simple import MOST_BYTES, ProjectRow, ProjectSite, clashes, declare
from waypost.routing.decision import Fetch, Redirect, Refuse, Reply, UpstreamHead
from waypost.routing.request import Request

BASE, FALLBACK = "https://pypi.acme.example", "https://fallback.example/simple/"
ONE, TWO = "https://one.example/simple/", "https://two.example/root/"
ROWS = [
    ProjectRow("my-skates", (ONE, TWO), "My.Skates", "acme"),
    ProjectRow("boots", (ONE,), "boots", None, True),
]
WHEEL = "my_skates-1.0-py3-none-any.whl"
PAGE = json.dumps(
    {
        "meta": {"api-version": "1.1"},
        "name": "my-skates",
        "files": [
            {
                "filename": WHEEL,
                "url": f"https://files.example/{WHEEL}",
                "hashes": {"sha256": "ab"},
                "core-metadata": True,
            },
            {
                "filename": "my_skates-1.0.tar.gz",
                "url": "https://files.example/old.tar.gz",
                "hashes": {},
                "gpg-sig": False,
            },
        ],
    }
).encode()
PIP = f"{JSON}, {HTML}; q=0.1, text/html; q=0.01"


def site(fallback=None, base=BASE):
    return ProjectSite(ROWS, HostPolicy(base, fallback=fallback))


def ask(path, method="GET", accept=None, of=None, query=None, scheme="https"):
    headers = [("accept", accept)] if accept is not None else []
    return (of or site()).decide(Request(method, "pypi.acme.example", path, query, headers, b"", scheme))


def kept(fetch, body=PAGE, content_type=JSON, status=200, **headers):
    head = UpstreamHead(status, (("content-type", content_type), *headers.items()), body)
    return fetch.then(head)


def given(fetch, **upstream):
    """What is given out, of what the upstream said."""
    made = kept(fetch, **upstream)
    assert isinstance(made, Reply), made
    return fetch.keep.choose(made)


def test_a_page_is_asked_of_all_upstreams_in_order():
    fetch = ask("/simple/my-skates/")
    assert isinstance(fetch, Fetch)
    assert [one.url for one in (fetch, *fetch.others)] == [f"{ONE}my-skates/", f"{TWO}my-skates/"]
    assert (fetch.buffer, fetch.keep.failure) == (MOST_BYTES, 503)
    assert dict(fetch.headers)["Accept"].startswith(JSON)
    (fact,) = fetch.keep.facts
    assert (fact.kind, fact.package, fact.owner) == ("index-fetch", "My.Skates", "acme")
    assert ask("/simple/my-skates/", "HEAD").keep.facts == ()


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, "text/html; charset=utf-8"),
        ("*/*", "text/html; charset=utf-8"),
        (PIP, JSON),
        (HTML, HTML),
        ("application/vnd.pypi.simple.latest+json", JSON),
        ("application/vnd.pypi.simple.latest+html", HTML),
        (f"{TEXT};q=0.5, {HTML};q=0.4", "text/html; charset=utf-8"),
    ],
)
def test_the_form_is_negotiated(accept, content_type):
    reply = given(ask("/simple/my-skates/", accept=accept))
    headers = dict(reply.headers)
    assert (headers["Content-Type"], headers["Vary"]) == (content_type, "accept")
    assert (reply.body[:1] == b"{") == (content_type == JSON)
    assert f"{BASE}/simple/my-skates/{WHEEL}".encode() in reply.body
    assert b"files.example" not in reply.body
    root = ask("/simple/", accept=accept)
    assert dict(root.headers)["Content-Type"] == content_type


def test_who_takes_no_form_is_told_which_there_are():
    for path in ("/simple/", "/simple/my-skates/"):
        refusal = ask(path, accept="application/json, text/html;q=0")
        assert refusal.status == 406
        assert JSON in refusal.message
        assert ("vary", "accept") in refusal.headers


def test_forms_share_what_is_kept_and_are_told_apart():
    pages = [ask("/simple/my-skates/", accept=accept).keep for accept in (None, PIP, HTML)]
    assert len({page.asked for page in pages}) == 1
    assert len({page.form for page in pages}) == 3
    file = ask(f"/simple/my-skates/{WHEEL}").keep
    assert (file.asked, file.form, file.quick, file.facts) == (pages[0].asked, "", True, ())
    # Another upstream, or another base, is another page.
    other = ProjectSite([ProjectRow("my-skates", (TWO,), "My.Skates")], HostPolicy(BASE))
    assert ask("/simple/my-skates/", of=other).keep.asked != pages[0].asked
    assert ask("/simple/my-skates/", of=site(base="http://x.example")).keep.asked != pages[0].asked


def test_a_file_leads_to_where_the_upstream_says():
    redirect = given(ask(f"/simple/my-skates/{WHEEL}"))
    assert isinstance(redirect, Redirect)
    assert (redirect.status, redirect.location) == (307, f"https://files.example/{WHEEL}")
    (fact,) = redirect.facts
    assert (fact.kind, fact.package, fact.owner, fact.artifact, fact.version, fact.platform, fact.upstream) == (
        "binary-download", "My.Skates", "acme", WHEEL, "1.0", "any", "files.example",
    )  # fmt: skip
    assert given(ask(f"/simple/my-skates/{WHEEL}", "HEAD")).facts == ()
    assert given(ask("/simple/My_Skates/my%5Fskates-1.0-py3-none-any.whl")).location == redirect.location


def test_companions_are_led_to_and_not_recorded():
    redirect = given(ask(f"/simple/my-skates/{WHEEL}.metadata"))
    assert (redirect.location, redirect.facts) == (f"https://files.example/{WHEEL}.metadata", ())
    assert given(ask(f"/simple/my-skates/{WHEEL}.asc")).location == f"https://files.example/{WHEEL}.asc"
    for file in (
        "my_skates-1.0.tar.gz.metadata",
        "my_skates-1.0.tar.gz.asc",
        f"{WHEEL}.sig",
        "x.whl.metadata",
        ".metadata",
    ):
        assert given(ask(f"/simple/my-skates/{file}")).status == 404


def test_https_never_leads_to_http():
    page = PAGE.replace(b"https://files", b"http://files")
    assert given(ask(f"/simple/my-skates/{WHEEL}"), body=page).status == 404
    assert site("http://fallback.example/").decide(Request("GET", "x", "/simple/other/")).status == 502


def test_a_file_of_a_plain_index():
    plain = ProjectSite([ProjectRow("boots", ("http://one.example/",), "boots")], HostPolicy("http://gw.example"))
    fetch = ask("/simple/boots/boots-1.tar.gz", of=plain, scheme="http")
    assert (
        given(fetch, body=b'<a href="boots-1.tar.gz">', content_type=TEXT).location
        == "http://one.example/boots/boots-1.tar.gz"
    )
    fetch = ask("/simple/boots/boots-1.tar.gz", of=plain, scheme="https")
    assert given(fetch, body=b'<a href="boots-1.tar.gz">', content_type=TEXT).status == 502


def test_a_file_may_pass_through():
    body = b'<a href="boots-1.tar.gz">'
    fetch = given(ask("/simple/boots/boots-1.tar.gz"), body=body, content_type=TEXT)
    assert isinstance(fetch, Fetch)
    assert (fetch.url, fetch.method, fetch.keep) == (f"{ONE}boots/boots-1.tar.gz", "GET", None)
    assert fetch.then(UpstreamHead(200, ())).facts[0].version == "1"


def test_what_the_index_does_not_list():
    for file in ("nope.whl", "..%2f..%2fetc", "a%2Fb", "%00", "%ff", "x/y", f"{WHEEL}/"):
        assert given(ask(f"/simple/my-skates/{file}")).status == 404, file


def test_other_spellings_lead_to_the_one_page():
    for path in ("/simple/my-skates", "/simple/My.Skates/", "/simple/MY__SKATES", "/simple/my%2Dskates/"):
        redirect = ask(path)
        assert (redirect.status, redirect.location, redirect.facts) == (301, f"{BASE}/simple/my-skates/", ())
    assert ask("/simple").location == f"{BASE}/simple/"


def test_the_root_lists_what_is_declared_here():
    reply = ask("/simple/", accept=JSON)
    assert json.loads(reply.body) == {
        "meta": {"api-version": "1.0"},
        "projects": [{"name": "boots"}, {"name": "my-skates"}],
    }
    assert b'<a href="my-skates/">my-skates</a>' in ask("/simple/").body
    etag = dict(reply.headers)["ETag"]
    again = site().decide(Request("GET", "x", "/simple/", None, [("accept", JSON), ("if-none-match", etag)]))
    assert again.status == 304


def test_what_nobody_declares_is_the_fallbacks():
    falling = site(FALLBACK)
    for path, location in [
        ("/simple/other/", "other/"),
        ("/simple/Other_One", "other-one/"),
        ("/simple/other/x-1.whl", "other/x-1.whl"),
        ("/simple/%C3%A9/", "%C3%A9/"),
        ("/simple/a%2Fb/", "a%2Fb/"),
    ]:
        redirect = ask(path, of=falling)
        assert (redirect.status, redirect.location, redirect.facts) == (307, FALLBACK + location, ()), path
    assert ask("/simple/other/", of=falling, query="a=b").location == f"{FALLBACK}other/?a=b"
    assert isinstance(ask("/simple/my-skates/", of=falling), Fetch)
    for path in ("/simple/../x/", "/simple/%2e%2e/", "/simple/other/..%2f..%2fx", "/simple/other/../../x"):
        climbing = ask(path, of=falling)
        assert isinstance(climbing, Refuse) or climbing.location.startswith(FALLBACK), path
        assert isinstance(climbing, Refuse) or "/.." not in climbing.location, path
    # Without one it is somebody else's question.
    assert ask("/simple/other/") is None
    assert ask("/other/") is None
    assert ask("/simplest/") is None


def test_an_index_is_read_only():
    for path in ("/simple/", "/simple/my-skates/", f"/simple/my-skates/{WHEEL}"):
        assert ask(path, "POST").status == 405


def test_redirects_of_an_upstream_are_followed():
    fetch = ask("/simple/my-skates/")
    again = kept(fetch, status=301, location="/moved/my-skates/")
    assert (again.url, again.headers, again.buffer) == (
        "https://one.example/moved/my-skates/",
        fetch.headers,
        fetch.buffer,
    )
    reply = kept(again, body=b'<a href="skates-1.tar.gz">', content_type=TEXT)
    assert b"https://one.example/moved/my-skates/skates-1.tar.gz" in reply.body
    for location in ("http://one.example/", "javascript:x", ""):
        assert kept(fetch, status=302, location=location).status == 502


@pytest.mark.parametrize(
    ("status", "answer"), [(404, 404), (410, 404), (401, 502), (403, 502), (500, 502), (204, 502), (206, 502)]
)
def test_what_an_upstream_says_instead(status, answer):
    assert kept(ask("/simple/my-skates/"), status=status).status == answer


def test_codings():
    fetch = ask("/simple/my-skates/", accept=JSON)
    plain = kept(fetch)
    coded = gzip.compress(PAGE)
    assert kept(fetch, body=coded, **{"content-encoding": "gzip"}) == plain
    bomb = gzip.compress(bytes(MOST_BYTES + 1))
    for body in (coded[:-9], coded[: len(coded) // 2], b"", PAGE, bomb, coded + b"x"):
        assert kept(fetch, body=body, **{"content-encoding": "gzip"}).status == 502
    assert kept(fetch, body=coded, **{"content-encoding": "br"}).status == 502
    refusal = kept(fetch, body=b"<html>Log in</html>", content_type=TEXT)
    assert (refusal.status, "without a link to any file" in refusal.message) == (502, True)


def test_declarations():
    def row(upstream, name="My.Skates", **more):
        return declare(Package(type="python", name=name, owner="acme", upstream=upstream, **more))[0]

    assert row("https://one.example/simple") == ProjectRow("my-skates", (ONE,), "My.Skates", "acme")
    assert row([ONE, "https://two.example/root/"]).indexes == (ONE, TWO)
    assert row(f"pip install my_skates[fast] --extra-index-url {ONE}").indexes == (ONE,)
    assert row(ONE, proxy=True).proxy


@pytest.mark.parametrize(
    ("package", "key"),
    [
        ({"name": "acme/skates", "upstream": ONE}, "name"),
        ({"name": "-skates", "upstream": ONE}, "name"),
        ({"name": "skates"}, "upstream"),
        ({"name": "skates", "upstream": []}, "upstream"),
        ({"name": "skates", "upstream": [ONE, "https://one.example/simple"]}, "upstream"),
        ({"name": "skates", "upstream": "one.example"}, "upstream"),
        ({"name": "skates", "upstream": "pip install boots"}, "upstream"),
        ({"name": "skates", "upstream": "pip install skates boots"}, "upstream"),
        ({"name": "skates", "upstream": ONE, "routes": [{"path": "/x"}]}, "routes"),
    ],
)
def test_declarations_that_cannot_work(package, key):
    with pytest.raises(DeclarationError) as caught:
        declare(msgspec.convert({"type": "python", **package}, Package))
    assert caught.value.key == key


def test_a_name_stands_once_in_an_index():
    (clash,) = clashes([*ROWS, ProjectRow("boots", (TWO,), "Boots")])
    assert "boots is declared twice" in clash.why


def test_explanations():
    def lines(path, fallback=None):
        (line,) = site(fallback).explain(Request("GET", "x", path))
        return line

    assert f"from {ONE}, and while that is down {TWO}" in lines("/simple/My_Skates/")
    assert "no fallback" in lines("/simple/other/")
    assert "the fallback has it" in lines("/simple/other/", FALLBACK)
    assert "of 2 projects" in lines("/simple/")
    assert site().explain(Request("GET", "x", "/other")) == []
