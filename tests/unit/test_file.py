"""Files: by template, by regular expression, and everything else."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waypost.artifacts.catch_all import CatchAllRow, CatchAllSite, outgoing
from waypost.artifacts.file import KIND, FileRoute, FileSite, clashing, declare
from waypost.artifacts.file_regex import FileRegexRow, FileRegexSite, RegexError, check
from waypost.artifacts.kind import DeclarationError, HostPolicy, Package, Route
from waypost.artifacts.target import QUERY_VARIABLES, followed
from waypost.routing.clash import clashes, neighbours
from waypost.routing.decision import Decision, Fact, Fetch, Redirect, Refuse, Relay, Reply, UpstreamHead
from waypost.routing.expression import TemplateError
from waypost.routing.request import Request
from waypost.routing.template import Template

POLICY = HostPolicy("https://get.acme.example")
ROUTE = FileRoute(
    "/{version}/{platform}/skates.tar.gz",
    "https://dl.example.net/skates-{version}-{platform}.tar.gz",
    "skates",
    "acme",
)


def ask(
    route: FileRoute,
    path: str,
    query: str | None = None,
    method: str = "GET",
    body: bytes = b"",
    headers: tuple[tuple[str, str], ...] = (),
    scheme: str = "http",
) -> Decision | None:
    return FileSite([route], POLICY).decide(Request(method, "get.acme.example", path, query, headers, body, scheme))


def facts(decision: Decision | None) -> tuple[Fact, ...]:
    assert isinstance(decision, Redirect | Reply)
    return decision.facts


def test_a_get_is_redirected_and_recorded() -> None:
    assert ask(ROUTE, "/1.2%2B3/linux-amd64/skates.tar.gz", "utm=a+b&version=9") == Redirect(
        "https://dl.example.net/skates-1.2%2B3-linux-amd64.tar.gz?utm=a+b&version=9",
        (
            Fact(
                kind="binary-download",
                package="skates",
                owner="acme",
                version="1.2+3",
                platform="linux-amd64",
                variables={"utm": "a b", "version": "1.2+3", "platform": "linux-amd64"},
                upstream="dl.example.net",
            ),
        ),
    )


def test_of_a_long_query_everything_is_carried_and_the_beginning_recorded() -> None:
    query = "&".join(f"q{number}=%41" for number in range(100))
    decision = ask(FileRoute("/x", "https://dl.example.net/x", "skates"), "/x", query)
    assert isinstance(decision, Redirect)
    assert decision.location == f"https://dl.example.net/x?{query}"
    assert decision.facts[0].variables == {f"q{number}": "A" for number in range(QUERY_VARIABLES)}


def test_a_head_is_redirected_and_not_recorded() -> None:
    assert ask(ROUTE, "/1/l/skates.tar.gz", method="HEAD") == Redirect("https://dl.example.net/skates-1-l.tar.gz")


def test_other_methods_and_other_paths() -> None:
    refused = ask(ROUTE, "/1/l/skates.tar.gz", method="DELETE")
    assert isinstance(refused, Refuse)
    assert (refused.status, refused.headers) == (405, (("allow", "GET, HEAD, POST"),))
    assert ask(ROUTE, "/1/l/other.tar.gz", method="DELETE") is None


def test_without_a_target_the_answer_is_200() -> None:
    route = FileRoute("/ping/{version}", None, "skates")
    answer = ask(route, "/ping/2", "os=linux")
    assert isinstance(answer, Reply)
    assert (answer.status, answer.body) == (200, b"")
    assert answer.facts[0].variables == {"version": "2", "os": "linux"}
    assert answer.facts[0].upstream is None


def test_a_path_that_climbs_is_not_found() -> None:
    route = FileRoute("/{+path}", "https://dl.example.net/public/{+path}", "skates")
    refused = ask(route, "/a/%2e%2e/%2e%2e/secret")
    assert isinstance(refused, Refuse)
    assert refused.status == 404


def test_https_never_leads_to_http() -> None:
    route = FileRoute("/x", "http://dl.example.net/x", "skates")
    assert isinstance(ask(route, "/x"), Redirect)
    refused = ask(route, "/x", scheme="https")
    assert isinstance(refused, Refuse)
    assert refused.status == 502


@pytest.mark.parametrize(
    ("body", "variables"),
    [
        (b'{"a": {"b": 1, "c": {"d": true}}, "e": "f"}', [{"a.b": "1", "a.c.d": "true", "e": "f"}]),
        (b'{"a": "1"} {"a": "2"}\n{"a": "3"}', [{"a": "1"}, {"a": "2"}, {"a": "3"}]),
        (b'{"version": "9", "q": "body"}', [{"q": "body"}]),
        (b'{"a": "\\ud800"}', [{"a": "?"}]),
        (b'{"a": 1}' * 20, [{"a": "1"}] * 10),
        (b'{"a": 1}' + b" " * 300 + b'{"a": 2}', [{"a": "1"}]),
    ],
)
def test_json_objects_of_a_body_become_facts(body: bytes, variables: list[dict[str, str]]) -> None:
    route = FileRoute("/ping/{version}", None, "skates")
    found = facts(ask(route, "/ping/2", "q=query", "POST", body))
    assert [fact.variables for fact in found] == [{"q": "query", **each, "version": "2"} for each in variables]
    assert {fact.kind for fact in found} == {"telemetry"}
    assert {fact.version for fact in found} == {"2"}


@pytest.mark.parametrize("body", [b"\xff\xfe", b"[1, 2]", b"{", b"null", b"[" * 5000, b'{"a":' * 1000, b"9" * 300])
def test_a_body_that_is_no_object_is_one_ordinary_fact(body: bytes) -> None:
    (fact,) = facts(ask(FileRoute("/ping", None, "skates"), "/ping", None, "POST", body))
    assert (fact.kind, fact.variables) == ("telemetry", None)
    (fact,) = facts(ask(FileRoute("/ping", None, "skates"), "/ping", None, "GET", body))
    assert (fact.kind, fact.variables) == ("binary-download", None)


def test_a_proxied_file_is_fetched_and_streamed() -> None:
    route = msgspec.structs.replace(ROUTE, proxy=True)
    headers = (
        ("range", "bytes=5-"),
        ("authorization", "Bearer x"),
        ("if-none-match", '"e"'),
        ("cookie", "c"),
    )
    fetch = ask(route, "/1/l/skates.tar.gz", headers=headers)
    assert isinstance(fetch, Fetch)
    assert fetch.url == "https://dl.example.net/skates-1-l.tar.gz"
    assert fetch.headers == (("range", "bytes=5-"), ("if-none-match", '"e"'))
    relay = fetch.then(UpstreamHead(206, (("content-range", "bytes 5-9/10"), ("set-cookie", "c"), ("etag", '"e"'))))
    assert isinstance(relay, Relay)
    assert (relay.status, relay.headers) == (206, (("content-range", "bytes 5-9/10"), ("etag", '"e"')))
    assert relay.facts[0].kind == "binary-download"
    assert fetch.then(UpstreamHead(304, (("etag", '"e"'),))) == Reply(304, (("etag", '"e"'),))


@pytest.mark.parametrize(("upstream", "ours"), [(404, 404), (410, 404), (416, 416), (401, 502), (429, 502), (500, 502)])
def test_what_an_upstream_refuses_is_refused(upstream: int, ours: int) -> None:
    fetch = ask(msgspec.structs.replace(ROUTE, proxy=True), "/1/l/skates.tar.gz")
    assert isinstance(fetch, Fetch)
    refused = fetch.then(UpstreamHead(upstream, ()))
    assert isinstance(refused, Refuse)
    assert refused.status == ours


def test_a_proxied_head_records_nothing_and_a_post_is_refused() -> None:
    route = msgspec.structs.replace(ROUTE, proxy=True)
    fetch = ask(route, "/1/l/skates.tar.gz", method="HEAD")
    assert isinstance(fetch, Fetch)
    assert fetch.method == "HEAD"
    relay = fetch.then(UpstreamHead(200, ()))
    assert isinstance(relay, Relay)
    assert relay.facts == ()
    refused = ask(route, "/1/l/skates.tar.gz", method="POST")
    assert isinstance(refused, Refuse)
    assert (refused.status, refused.headers) == (405, (("allow", "GET, HEAD"),))


def test_a_proxied_file_that_moved_is_fetched_from_there() -> None:
    fetch = ask(msgspec.structs.replace(ROUTE, proxy=True), "/1/l/skates.tar.gz", headers=(("range", "bytes=0-"),))
    assert isinstance(fetch, Fetch)
    again = fetch.then(UpstreamHead(302, (("location", "https://cdn.example/x?signature=1"),)))
    assert isinstance(again, Fetch)
    assert (again.url, again.headers) == ("https://cdn.example/x?signature=1", (("range", "bytes=0-"),))
    assert isinstance(again.then(UpstreamHead(200, ())), Relay)
    refused = fetch.then(UpstreamHead(302, ()))
    assert isinstance(refused, Refuse)
    assert refused.status == 502


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/y", "https://dl.example.net/y"),
        ("//cdn.example/y", "https://cdn.example/y"),
        ("http://cdn.example/y", None),
        ("ftp://cdn.example/y", None),
        ("https://user@cdn.example/y", None),
        ("https://[cdn/y", None),
        ("https:///y", "https://dl.example.net/y"),
        ("/y z", None),
        ("/y\r\nx", None),
        ("/é", None),
        ("", None),
    ],
)
def test_where_a_redirect_leads(location: str, target: str | None) -> None:
    assert followed("https://dl.example.net/x", location) == target


# Mirrors

MIRRORED = msgspec.structs.replace(ROUTE, others=("https://two.example:8443/{version}/{platform}",))
PATH = "/1/l/skates.tar.gz"


def test_mirrors_are_offered_in_order_and_each_fact_names_its_own() -> None:
    redirect = ask(MIRRORED, PATH, "a=b")
    assert isinstance(redirect, Redirect)
    assert redirect.location == "https://dl.example.net/skates-1-l.tar.gz?a=b"
    (other,) = redirect.others
    assert other.location == "https://two.example:8443/1/l?a=b"
    assert [one.facts[0].upstream for one in (redirect, other)] == ["dl.example.net", "two.example:8443"]
    assert redirect.facts == (msgspec.structs.replace(other.facts[0], upstream="dl.example.net"),)
    # Whoever has the file has the same: clients need not stay with one of them.
    assert redirect.pin is None


def test_of_posted_objects_each_is_a_fact_at_each_mirror() -> None:
    redirect = ask(MIRRORED, PATH, None, "POST", b'{"a": 1}{"a": 2}')
    assert isinstance(redirect, Redirect)
    assert [fact.variables for fact in redirect.others[0].facts] == [fact.variables for fact in redirect.facts]
    assert {fact.upstream for fact in redirect.others[0].facts} == {"two.example:8443"}
    assert len(redirect.facts) == 2


def test_a_head_leaves_no_fact_at_any_mirror() -> None:
    redirect = ask(MIRRORED, PATH, method="HEAD")
    assert isinstance(redirect, Redirect)
    assert [one.facts for one in (redirect, *redirect.others)] == [(), ()]


def test_homebrew_looks_at_whichever_mirror_can_be_looked_at() -> None:
    look = ask(MIRRORED, PATH, method="HEAD", headers=(("user-agent", "Homebrew/4"),))
    assert isinstance(look, Fetch)
    (other,) = look.others
    assert [one.url for one in (look, other)] == [
        "https://dl.example.net/skates-1-l.tar.gz",
        "https://two.example:8443/1/l",
    ]
    assert look.instead is None
    assert other.instead == ask(MIRRORED, PATH, method="HEAD")
    alone = ask(ROUTE, PATH, method="HEAD", headers=(("user-agent", "Homebrew/4"),))
    assert isinstance(alone, Fetch)
    assert alone.instead == Redirect("https://dl.example.net/skates-1-l.tar.gz")


def test_a_path_that_climbs_out_of_any_mirror_is_not_found() -> None:
    route = FileRoute("/{+x}", "https://one.example/?{+x}", "skates", others=("https://two.example/{+x}",))
    refused = ask(route, "/../x")
    assert isinstance(refused, Refuse)
    assert refused.status == 404


def test_no_mirror_leads_from_https_to_http() -> None:
    route = msgspec.structs.replace(ROUTE, others=("http://two.example/{version}",))
    assert isinstance(ask(route, PATH), Redirect)
    refused = ask(route, PATH, scheme="https")
    assert isinstance(refused, Refuse)
    assert (refused.status, refused.code) == (502, "UNSAFE_TARGET")


def test_a_proxied_file_comes_from_whichever_mirror_has_it() -> None:
    fetch = ask(msgspec.structs.replace(MIRRORED, proxy=True), PATH, headers=(("range", "bytes=0-"),))
    assert isinstance(fetch, Fetch)
    (other,) = fetch.others
    assert other.url == "https://two.example:8443/1/l"
    assert fetch.headers == other.headers == (("range", "bytes=0-"),)
    assert fetch.alike
    relay = other.then(UpstreamHead(200, ()))
    assert isinstance(relay, Relay)
    assert relay.facts[0].upstream == "two.example:8443"
    alone = ask(msgspec.structs.replace(ROUTE, proxy=True), PATH)
    assert isinstance(alone, Fetch)
    assert not alone.alike


def test_what_any_mirror_says_of_a_lock_is_said_in_our_name() -> None:
    fetch = ask(msgspec.structs.replace(MIRRORED, proxy=True), PATH)
    assert isinstance(fetch, Fetch)
    relay = fetch.others[0].then(UpstreamHead(200, (("link", '<https://two.example:8443/2/m>; rel="immutable"'),)))
    assert isinstance(relay, Relay)
    assert relay.headers == (("link", '<https://get.acme.example/2/m/skates.tar.gz>; rel="immutable"'),)


def test_mirrors_are_declared_as_a_list() -> None:
    to = ["https://dl.example.net/{x}", "github:acme/skates"]
    rows = declare(Package(type="file", name="skates", routes=[Route("/{x}", to, proxy=True)]))
    there = "https://github.com/acme/skates/releases/latest/download/{x}"
    assert rows == [FileRoute("/{x}", to[0], "skates", None, True, (there,))]
    assert rows[0].ways == (to[0], there)
    assert rows == declare(Package(type="file", name="skates", proxy=True, routes=[Route("/{x}", to)]))


def test_more_literal_text_wins_and_explain_says_so() -> None:
    rows = [
        FileRoute("/{x}/{y}", None, "one"),
        FileRoute("/{x}/y", None, "two"),
        FileRoute("/{x}/{x}", None, "three"),
    ]
    site = FileSite(rows, POLICY)
    assert facts(site.decide(Request("GET", "h", "/y/y")))[0].package == "two"
    assert facts(site.decide(Request("GET", "h", "/z/z")))[0].package == "three"
    assert site.explain(Request("GET", "h", "/y/y")) == [
        "file: /{x}/y → 200 (x=y), package two",
        "file: /{x}/{x} → 200 matches as well, but has less literal text",
        "file: /{x}/{y} → 200 matches as well, but has less literal text",
    ]
    assert site.explain(Request("GET", "h", "/")) == ["file: none of 3 routes matches /"]


def test_declare() -> None:
    package = Package(
        type="file",
        name="skates",
        owner="acme",
        routes=[Route(ROUTE.path, ROUTE.to), Route("/ping")],
        proxy=False,
    )
    assert declare(package) == [ROUTE, FileRoute("/ping", None, "skates", "acme")]


@pytest.mark.parametrize(
    ("package", "key", "says"),
    [
        (Package(type="file", name="x"), "routes", "at least one route"),
        (Package(type="file", name="x", upstream="https://dl.example/"), "upstream", "routes ="),
        (Package(type="file", name="x", routes=[Route("x", None)]), "routes[0].path", "begins with '/'"),
        (
            Package(type="file", name="x", routes=[Route("/x"), Route("/{x", None)]),
            "routes[1].path",
            "never closed",
        ),
        (Package(type="file", name="x", routes=[Route("/x", "/y")]), "routes[0].to", "https://"),
        (
            Package(type="file", name="x", routes=[Route("/x", "https://h.example/{y}")]),
            "routes[0].to",
            "no variable 'y'",
        ),
        (Package(type="file", name="x", routes=[Route("/{x}", "https://{x}/")]), "routes[0].to", "variables"),
        (Package(type="file", name="x", routes=[Route("/x", [])]), "routes[0].to", "at least one URL"),
        (
            Package(type="file", name="x", routes=[Route("/x", ["https://h.example/x", "https://h.example/x"])]),
            "routes[0].to",
            "each place once",
        ),
        (
            Package(type="file", name="x", routes=[Route("/x", ["https://h.example/", "/y"])]),
            "routes[0].to",
            "https://",
        ),
    ],
)
def test_a_declaration_that_cannot_work_says_where(package: Package, key: str, says: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        declare(package)
    assert caught.value.key == key
    assert says in caught.value.expected


PIECES = st.sampled_from(["a", "b", "ab", "{x}", "{y}", "a{x}", "a{y}b", "{x}b", "{+x}", "a{+x}b", ""])
PATHS = st.lists(PIECES, min_size=1, max_size=3).map(lambda pieces: "/" + "/".join(pieces)) | st.sampled_from(
    ["/%61/{x}", "{/x,y}", "/a?q={x}", "/a{?q}", "/é/{x}", "/%C3%A9/{y}", "/a;x", "/a{;x}"]
)


def test_routes_that_cannot_be_told_apart() -> None:
    rows = [
        FileRoute("/{a}/x", None, "one"),
        FileRoute("/x/{b}", None, "two"),
        FileRoute("/y/{b}", None, "three"),
    ]
    (clash,) = [each for each in clashing(rows) if rows[2] not in (each.one, each.other)]
    assert (clash.one, clash.other) == (rows[0], rows[1])
    assert clash.why.startswith("/{a}/x (package one) and /x/{b} (package two) can match the same path")
    assert clashing([FileRoute("/{a}/{b}", None, "one"), FileRoute("/{a}/b", None, "two")]) == []


@settings(max_examples=200, deadline=None)
@given(st.lists(PATHS, min_size=2, max_size=6))
def test_no_clash_is_missed_by_looking_at_the_text_first(paths: list[str]) -> None:
    rows = [FileRoute(path, None, str(number)) for number, path in enumerate(paths)]
    found = {(clash.one.package, clash.other.package) for clash in clashing(rows)}
    pairs = clashes([Template.parse(path) for path in paths])
    assert found == {(str(one), str(other)) for one, other in pairs}


def test_routes_that_begin_apart_are_no_neighbours() -> None:
    texts = [f"/releases/{{v}}/tool-{number}-{{p}}.zip" for number in range(300)]
    texts += [f"/mirror/tool-{number}/{{+path}}" for number in range(300)]
    texts += [f"/tool-{number}/{{v}}/x" for number in range(300)]
    assert neighbours(texts) == []
    assert neighbours([*texts, texts[5]]) == [[5, 900]]


def test_rows_survive_a_snapshot() -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(ROUTE), type=KIND.row) == ROUTE


def test_the_first_regular_expression_that_is_found_decides() -> None:
    rows = [
        FileRegexRow(r"/v(?<version>[0-9.]+)/(?P<file>.*)$", "https://dl.example.net/{version}/{+file}", "skates"),
        FileRegexRow(r"skates(-(?<version>\d+))?", "https://dl.example.net/s{?version}", "other"),
        FileRegexRow(r"skates", None, "never"),
    ]
    for site in (FileRegexSite(rows, POLICY), FileRegexSite(rows[:2], POLICY)):
        first = site.decide(Request("GET", "h", "/x/v1.2/a/skates-7"))
        assert isinstance(first, Redirect)
        assert first.location == "https://dl.example.net/1.2/a/skates-7"
        second = site.decide(Request("GET", "h", "/skates", "q=1"))
        assert isinstance(second, Redirect)
        assert second.location == "https://dl.example.net/s?version=&q=1"
        assert site.decide(Request("GET", "h", "/nothing")) is None
        assert site.explain(Request("GET", "h", "/nothing")) == [
            f"file-regex: none of {len(site._rows)} patterns is found in /nothing"
        ]


def test_patterns_too_many_for_one_automaton_are_tried_one_by_one() -> None:
    rows = [FileRegexRow(rf"/p{number}-(\w{{200}}|x)+\d", None, f"p{number}") for number in range(300)]
    site = FileRegexSite(rows, POLICY)
    assert site._set is None
    assert facts(site.decide(Request("GET", "h", "/p299-x1")))[0].package == "p299"


@pytest.mark.parametrize(
    ("row", "error", "says"),
    [
        (FileRegexRow(r"(?=a)", None, "p"), RegexError, "invalid perl operator"),
        (FileRegexRow(r"(a)\1", None, "p"), RegexError, "invalid escape"),
        (FileRegexRow(r"(", None, "p"), RegexError, "missing )"),
        (FileRegexRow(r"(?<x>a)", "https://h.example/{y}", "p"), TemplateError, "binds no variable"),
        (FileRegexRow(r"(?<x>a)", "https://h{x}/", "p"), TemplateError, "host"),
    ],
)
def test_a_regular_expression_that_cannot_be_served_is_refused(
    row: FileRegexRow, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says.replace(")", r"\)")):
        check(row)


@pytest.mark.parametrize(
    ("path", "query", "location"),
    [
        ("/", None, "https://old.example/"),
        ("/a/b%2Fc", "x=1&x=2", "https://old.example/a/b%2Fc?x=1&x=2"),
        ("//evil.example/", None, "https://old.example//evil.example/"),
        ('/a b"', "c d#", "https://old.example/a%20b%22?c%20d%23"),
        ("/a", "", "https://old.example/a?"),
    ],
)
def test_a_catch_all_sends_everything_to_the_same_address(path: str, query: str | None, location: str) -> None:
    decision = CatchAllSite([CatchAllRow("old.example", "skates")], POLICY).decide(Request("GET", "h", path, query))
    assert isinstance(decision, Redirect)
    assert decision.location == location
    assert decision.facts[0].kind == "binary-download"


def test_a_catch_all_without_target() -> None:
    answer = CatchAllSite([CatchAllRow(None, "skates")], POLICY).decide(Request("GET", "h", "/a/b", "c=d"))
    assert isinstance(answer, Reply)
    assert (answer.status, answer.facts[0].variables) == (200, {"c": "d"})


@pytest.mark.parametrize("target", ["", "user@h", "h/..", "h x", "{x}"])
def test_a_catch_all_target_is_a_host(target: str) -> None:
    with pytest.raises(TemplateError):
        outgoing(target)


# Homebrew


BREW = (("user-agent", "Homebrew/4.2.17 (Macintosh; arm64 Mac OS X 14.4) curl/8.4.0"),)


def test_homebrew_that_looks_is_told_by_us_and_comes_back() -> None:
    target = "https://dl.example.net/skates-1-l.tar.gz"
    fetch = ask(ROUTE, "/1/l/skates.tar.gz", method="HEAD", headers=BREW)
    assert isinstance(fetch, Fetch)
    assert (fetch.url, fetch.method, fetch.instead) == (target, "HEAD", Redirect(target))
    relay = fetch.then(UpstreamHead(200, (("content-length", "3"),)))
    named = ("content-disposition", 'attachment; filename="skates.tar.gz"')
    assert relay == Relay(200, (("content-length", "3"), named))
    assert fetch.then(UpstreamHead(403, ())) == Redirect(target)
    got = ask(ROUTE, "/1/l/skates.tar.gz", headers=BREW)
    assert isinstance(got, Redirect)
    assert got.facts


def test_a_name_that_could_be_misread_is_not_told() -> None:
    route = FileRoute("/{+path}", "https://dl.example.net/{+path}", "skates")
    for path in ("/a%22b", "/a%0d%0ab", "/", "/%c3%a9"):
        fetch = ask(route, f"{path}", method="HEAD", headers=BREW)
        if isinstance(fetch, Fetch):
            assert fetch.then(UpstreamHead(200, ())) == Relay(200, ())
