"""artifacts/project_page.py and listing.py: pages as upstreams write them, and as we give them out."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pip._internal.index.collector import IndexContent, parse_links

from waypost.artifacts.listing import Listing, Place, kept_of
from waypost.artifacts.project_page import HTML, JSON, TEXT, Unreadable

LINKS = "https://gw.example/simple/skates/"
URL = "https://pypi.example/simple/skates/"
WHEEL, SDIST = "skates-1.0-py3-none-any.whl", "skates-1.0.tar.gz"
PAGE = {
    "meta": {"api-version": "1.4", "tracks": ["https://track.example/simple/skates/"], "_last-serial": 7},
    "name": "Skates",
    "versions": ["1.0"],
    "alternate-locations": ["https://alt.example/simple/skates/"],
    "project-status": {"status": "archived", "reason": "see <boots>"},
    "files": [
        {
            "filename": WHEEL,
            "url": f"../../files/{WHEEL}",
            "hashes": {"md5": "ab", "sha256": "cd"},
            "requires-python": ">=3.8,<4",
            "core-metadata": {"sha256": "ef"},
            "yanked": 'bad "build" & more',
            "size": 123,
            "upload-time": "2026-01-02T03:04:05.678Z",
            "provenance": "https://pypi.example/integrity/1",
            "later": {"to": "come"},
        },
        {
            "filename": SDIST,
            "url": f"https://files.example/{SDIST}?token=1",
            "hashes": {},
            "gpg-sig": True,
            "yanked": False,
        },
    ],
}


def taken(page, content_type=JSON, url=URL):
    body = page if isinstance(page, bytes) else page.encode() if isinstance(page, str) else json.dumps(page).encode()
    return Listing(kept_of(body, content_type, url, "skates", LINKS))


def test_json_stays_as_it_is_but_for_name_and_links():
    told = json.loads(taken(PAGE).page(JSON))
    expected = json.loads(json.dumps(PAGE))
    expected["name"] = "skates"
    for file in expected["files"]:
        file["url"] = LINKS + file["filename"]
    assert told == expected


def test_html_of_json_tells_the_same():
    html = taken(PAGE).page(HTML).decode()
    assert taken(PAGE).page(TEXT).decode() == html
    assert re.findall(r'<meta name="([^"]*)" content="([^"]*)">', html) == [
        ("pypi:repository-version", "1.4"),
        ("pypi:tracks", "https://track.example/simple/skates/"),
        ("pypi:alternate-locations", "https://alt.example/simple/skates/"),
        ("pypi:project-status", "archived"),
        ("pypi:project-status-reason", "see &lt;boots&gt;"),
    ]
    wheel, sdist = re.findall(r"<a .*?</a>", html)
    assert wheel == (
        f'<a href="{LINKS}{WHEEL}#sha256=cd" data-requires-python="&gt;=3.8,&lt;4" data-core-metadata="sha256=ef" '
        'data-dist-info-metadata="sha256=ef" data-yanked="bad &quot;build&quot; &amp; more" '
        f'data-provenance="https://pypi.example/integrity/1">{WHEEL}</a>'
    )
    assert sdist == f'<a href="{LINKS}{SDIST}" data-gpg-sig="true">{SDIST}</a>'


def test_what_we_wrote_reads_the_same():
    first = taken(PAGE)
    for form in (JSON, HTML):
        again = taken(first.page(form), form, LINKS)
        assert again.page(HTML).split(b"</head>")[1] == first.page(HTML).split(b"</head>")[1]


def test_pip_reads_both_forms_alike():
    """By its own reader: clients that the tests run ask for JSON."""
    listing = taken(PAGE)
    json_links, html_links = (
        list(parse_links(IndexContent(listing.page(form), form, "utf-8", LINKS, False))) for form in (JSON, HTML)
    )
    assert len(json_links) == len(html_links) == 2
    for one, other in zip(json_links, html_links, strict=True):
        for field in ("filename", "url_without_fragment", "requires_python", "yanked_reason", "metadata_file_data"):
            assert getattr(one, field) == getattr(other, field), field
    assert html_links[0].hash == "cd"
    assert html_links[0].metadata_link().url == f"{LINKS}{WHEEL}.metadata"


def test_where_files_are():
    listing = taken(PAGE)
    assert listing.place(WHEEL) == Place(f"https://pypi.example/files/{WHEEL}", True, True)
    place = listing.place(SDIST)
    assert place == Place(f"https://files.example/{SDIST}?token=1", False, True)
    assert place.beside(".asc") == f"https://files.example/{SDIST}.asc?token=1"
    for name in (
        "",
        "skates",
        WHEEL[1:],
        f"{WHEEL}\t",
        f"\n{WHEEL}",
        f"x\n{WHEEL}",
        "\ud800",
        WHEEL.upper(),
        f"{WHEEL}\thttps",
    ):
        assert listing.place(name) is None, name


def test_html_as_servers_write_it():
    listing = taken(
        """<!DOCTYPE html><html><head><title>x</title><BASE HREF="https://files.example/all/"></head><body>
        <!-- <a href="skates-0.1.tar.gz">not this</a> -->
        <a  href='skates-1.0.tar.gz#sha256=ab' data-requires-python='&gt;=3'
            data-yanked>skates-1.0.tar.gz</a>
        <A HREF=skates-1.1.tar.gz#md5=cd data-dist-info-metadata="true" data-gpg-sig="false">any text</A>
        <a href="/other/skates-1.2+x%20y.tar.gz" rel="internal">x</a><a href="../">up</a><a name="here"></a>
        <a href="https://home.example/">home</a><a href="//cdn.example/skates-1.3.zip"/>
        <article><abbr><base2>""",
        "text/html; charset=utf-8",
    )  # fmt: skip
    told = json.loads(listing.page(JSON))
    assert told == {
        "meta": {"api-version": "1.0"},
        "name": "skates",
        "files": [
            {
                "filename": "skates-1.0.tar.gz",
                "url": f"{LINKS}skates-1.0.tar.gz",
                "hashes": {"sha256": "ab"},
                "requires-python": ">=3",
                "yanked": True,
            },
            {
                "filename": "skates-1.1.tar.gz",
                "url": f"{LINKS}skates-1.1.tar.gz",
                "hashes": {"md5": "cd"},
                "core-metadata": True,
                "gpg-sig": False,
            },
            {"filename": "skates-1.2+x y.tar.gz", "url": f"{LINKS}skates-1.2%2Bx%20y.tar.gz", "hashes": {}},
            {"filename": "skates-1.3.zip", "url": f"{LINKS}skates-1.3.zip", "hashes": {}},
        ],
    }
    where = [listing.place(file["filename"]).url for file in told["files"]]
    assert where == [
        "https://files.example/all/skates-1.0.tar.gz",
        "https://files.example/all/skates-1.1.tar.gz",
        "https://files.example/other/skates-1.2+x%20y.tar.gz",
        "https://cdn.example/skates-1.3.zip",
    ]


@pytest.mark.parametrize(
    "url",
    ["http://files.example/x.whl", "javascript:x.whl", "https://me:pw@files.example/x.whl",
     "data:,x.whl", "https://[::1/x.whl", "//me@files.example/x.whl"],
)  # fmt: skip
def test_links_that_nobody_follows_are_left_out(url):
    page = {**PAGE, "files": [{"filename": "x.whl", "url": url}, {"filename": "y.whl", "url": "y.whl"}]}
    assert [file["filename"] for file in json.loads(taken(page).page(JSON))["files"]] == ["y.whl"]


def test_a_link_that_nobody_follows_opens_no_way_for_others():
    for bad in ("https://me@evil.example/", "https:///", "javascript:/", "http://plain.example/"):
        files = [{"filename": f"{end}.whl", "url": f"{bad}{end}"} for end in ("", "x", "y/z")]
        listing = taken({**PAGE, "files": files})
        for file in json.loads(listing.page(JSON))["files"]:
            assert listing.place(file["filename"]).url.startswith("https://pypi.example/")


def test_what_one_link_may_says_nothing_of_another():
    urls = [
        "https://files.example/a.whl",
        "https://files.example/../b.whl",
        "https://files.example@evil.example/c.whl",
        "/d.whl",
        "/../e.whl",
        "//other.example/f.whl",
    ]
    page = {**PAGE, "files": [{"filename": f"{number}.whl", "url": url} for number, url in enumerate(urls)]}
    listing = taken(page)
    assert [listing.place(f"{number}.whl") and listing.place(f"{number}.whl").url for number in range(6)] == [
        "https://files.example/a.whl", "https://files.example/../b.whl", None, "https://pypi.example/d.whl",
        "https://pypi.example/e.whl", "https://other.example/f.whl",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b.whl", "a\\b.whl", "a\nb.whl", "a\tb.whl", "a\x00.whl", "\ud800.whl"]
)
def test_names_that_are_none_are_left_out(name):
    page = {**PAGE, "files": [{"filename": name, "url": "x.whl"}]}
    assert json.loads(taken(page).page(JSON))["files"] == []


def test_the_first_of_two_equal_names_wins():
    page = {**PAGE, "files": [{"filename": "x.whl", "url": url} for url in ("a/x.whl", "b/x.whl")]}
    assert taken(page).place("x.whl").url == f"{URL}a/x.whl"


GOOD = json.dumps(PAGE)


@pytest.mark.parametrize(
    ("content_type", "body", "says"),
    [
        (TEXT, "<html><body>Please <a href='/login'>log in</a></body></html>", "without a link to any file"),
        (TEXT, "", "without a link to any file"),
        (TEXT, "<!-- never ends", "comment that does not end"),
        (TEXT, '<a href="x.whl', "does not end"),
        (TEXT, "<a " * 200_000, "does not end"),
        (TEXT, "<!-- " * 200_000, "does not end"),
        (TEXT, '<meta name="pypi:repository-version" content="2.0">', "version '2.0'"),
        (JSON, "<html>", "that should follow"),
        (JSON, "", "that should follow"),
        (JSON, "[]", "that should follow"),
        (JSON, "{}", "meta or name is missing"),
        (JSON, GOOD[:-1], "that should follow"),
        (JSON, GOOD[: len(GOOD) // 2], "no page of the"),
        (JSON, f"{GOOD} x", "something behind it"),
        (JSON, GOOD.replace('"1.4"', '"2.0"'), "version '2.0'"),
        (JSON, GOOD.replace('"1.4"', "1"), "version '1'"),
        (JSON, '{"meta": {"api-version": "1.0"}, "name": "x", "files": [1]}', "no object"),
        (JSON, '{"meta": {"api-version": "1.0"}, "name": "x", "files": [{"filename": "x.whl"}]}', "without filename"),
        (JSON, '{"meta": {"api-version": "1.0"}, "name": "x", "files": [{"filename": "x", "url": "x"}, ]}', "comma at the end"),
        (JSON, '{"meta": {"api-version": "1.0"}, "name": "x", "files": {}}', "that should follow"),
        (JSON, '{"meta": {"api-version": "1.0"}, "name": "x", "size": NaN}', "NaN"),
        (JSON, '{"meta": {"api-version": "1.0", "tracks": 1}, "name": "x"}', "no list"),
        (JSON, '{"meta": {"api-version": "1.0"}, "name": "x", "y": ' + "[" * 200_000, "no page of the"),
        (JSON, b'{"meta": {"api-version": "1.0"}, "name": "\xff"}', "no page of the"),
        (JSON, '{"meta": {"api-version": "1.0"}, "name": "x", "y": "\\ud800"}', "no page of the"),
    ],
)  # fmt: skip
def test_what_is_no_page_says_so(content_type, body, says):
    with pytest.raises(Unreadable, match=says):
        taken(body, content_type)


def test_an_empty_page_that_says_what_it_is_is_one():
    listing = taken(
        '<meta name="pypi:repository-version" content="1.1"><meta name="pypi:project-status" content="quarantined">',
        TEXT,
    )
    told = json.loads(listing.page(JSON))
    assert told == {
        "meta": {"api-version": "1.0"},
        "name": "skates",
        "project-status": {"status": "quarantined"},
        "files": [],
    }


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["sha256", "status", "x"]), inner, max_size=3)
    ),
    max_leaves=5,
)
KEYS = ["hashes", "requires-python", "core-metadata", "gpg-sig", "yanked", "size", "provenance", "dist-info-metadata"]


@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS, ODD)),
    st.fixed_dictionaries({}, optional=dict.fromkeys(["versions", "project-status", "alternate-locations"], ODD)),
)
def test_whatever_stands_in_a_page_it_is_read_or_refused(entry, top):
    page = {
        "meta": {"api-version": "1.1"},
        "name": "skates",
        **top,
        "files": [{"filename": WHEEL, "url": WHEEL, **entry}],
    }
    try:
        listing = taken(page)
    except Unreadable:
        return
    told = json.loads(listing.page(JSON))
    assert told["files"][0] == {"hashes": {}, **page["files"][0], "url": LINKS + WHEEL}
    assert listing.place(WHEEL).url == URL + WHEEL
    # Nothing of it breaks out of its attribute.
    assert taken(listing.page(HTML), HTML).place(WHEEL) is not None


@given(st.text(alphabet=st.sampled_from("<>a=\"'/ -!hrefmtb#.whl\n&;"), max_size=60) | st.text(max_size=30))
def test_whatever_html_is_sent_it_is_read_or_refused(text):
    try:
        taken(text, TEXT)
    except Unreadable:
        pass
