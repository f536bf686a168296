from __future__ import annotations

from waypost.artifacts.kind import HostPolicy
from waypost.artifacts.python import PythonFileRow, PythonFileSite
from waypost.artifacts.release import normalise
from waypost.routing.request import Request

SITE = PythonFileSite(
    [
        PythonFileRow("My.Skates", "my_skates-1.0-py3-none-any.whl", "1.0", "https://files.example/a.whl", "skates", "acme", "sha256=ab", True, ">=3.8,<4"),
        PythonFileRow("my-skates", "my skates-2.0.tar.gz", "2.0", "https://files.example/b.tar.gz", "skates"),
    ],
    HostPolicy("https://pypi.acme.example"),
)  # fmt: skip


def ask(path, method="GET", headers=()):
    return SITE.decide(Request(method, "pypi.acme.example", path, headers=headers))


def test_names_are_normalised():
    assert normalise("My._-Skates") == "my-skates"


def test_the_root_lists_projects():
    reply = ask("/simple/")
    assert (reply.status, reply.facts) == (200, ())
    assert b'<a href="my-skates/">my-skates</a>' in reply.body


def test_a_page_lists_files_with_what_pip_needs():
    reply = ask("/simple/my-skates/")
    html = reply.body.decode()
    assert 'href="my_skates-1.0-py3-none-any.whl#sha256=ab"' in html
    assert 'data-requires-python="&gt;=3.8,&lt;4"' in html
    assert 'data-gpg-sig="true"' in html
    assert 'href="my%20skates-2.0.tar.gz"' in html
    assert [fact.kind for fact in reply.facts] == ["index-fetch"]


def test_etag_and_304():
    reply = ask("/simple/my-skates/")
    etag = dict(reply.headers)["etag"]
    for known in (etag, f'"other", W/{etag}', "*"):
        again = ask("/simple/my-skates/", headers=[("if-none-match", known)])
        assert (again.status, again.body, again.facts) == (304, b"", ())
    assert ask("/simple/my-skates/", headers=[("if-none-match", '"other"')]).status == 200


def test_other_spellings_lead_to_the_one_page():
    for path in ("/simple/my-skates", "/simple/My.Skates/", "/simple/MY_SKATES"):
        redirect = ask(path)
        assert (redirect.status, redirect.location, redirect.facts) == (
            301,
            "https://pypi.acme.example/simple/my-skates/",
            (),
        )
    assert ask("/simple").location == "https://pypi.acme.example/simple/"


def test_a_file_is_a_download():
    redirect = ask("/simple/my-skates/my_skates-1.0-py3-none-any.whl")
    assert (redirect.status, redirect.location) == (307, "https://files.example/a.whl")
    (fact,) = redirect.facts
    assert (fact.kind, fact.package, fact.owner, fact.version, fact.upstream) == (
        "binary-download",
        "skates",
        "acme",
        "1.0",
        "files.example",
    )
    assert ask("/simple/my-skates/my%20skates-2.0.tar.gz").location == "https://files.example/b.tar.gz"


def test_head_records_nothing():
    assert ask("/simple/my-skates/", "HEAD").facts == ()
    assert ask("/simple/my-skates/my_skates-1.0-py3-none-any.whl", "HEAD").facts == ()


def test_what_is_not_there():
    assert ask("/simple/other/").status == 404
    assert ask("/simple/my-skates/nope.whl").status == 404
    assert ask("/simple/my-skates/", "POST").status == 405
    assert ask("/other") is None
    assert ask("/simplest/") is None
