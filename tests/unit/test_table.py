"""The table, and what of the trie the oracle does not show."""

from __future__ import annotations

from waypost.routing.decision import Decision, Reply
from waypost.routing.request import Request
from waypost.routing.table import NO_MATCH, UNKNOWN_HOST, Table
from waypost.routing.template import Template
from waypost.routing.trie import RouteTrie


class Fixed:
    def __init__(self, path: str, status: int) -> None:
        self.path = path
        self.status = status

    def decide(self, request: Request) -> Decision | None:
        return Reply(self.status) if request.path == self.path else None

    def explain(self, request: Request) -> list[str]:
        return [f"{self.path} is {self.status}"]


def test_the_first_site_that_answers_decides() -> None:
    table = Table({"a.example": [Fixed("/x", 200), Fixed("/x", 201), Fixed("/y", 202)]}.get)
    assert table.decide(Request("GET", "a.example", "/x")) == Reply(200)
    assert table.decide(Request("GET", "a.example", "/y")) == Reply(202)
    assert table.decide(Request("GET", "a.example", "/z")) == NO_MATCH
    assert table.decide(Request("GET", "b.example", "/x")) == UNKNOWN_HOST


def test_paths_of_our_own_go_before_every_site_of_every_host_of_ours() -> None:
    table = Table({"a.example": [Fixed("/x", 200)]}.get, {"/x": lambda request: Reply(203)})
    assert table.decide(Request("GET", "a.example", "/x")) == Reply(203)
    assert table.decide(Request("GET", "b.example", "/x")) == UNKNOWN_HOST
    assert table.explain(Request("GET", "a.example", "/x")) == [
        "answered the same on every host of this configuration, before its own rules"
    ]


def test_explain_ends_with_the_site_that_answers() -> None:
    table = Table({"a.example": [Fixed("/x", 200), Fixed("/y", 202), Fixed("/z", 203)]}.get)
    assert table.explain(Request("GET", "a.example", "/y")) == ["/x is 200", "/y is 202"]
    assert table.explain(Request("GET", "a.example", "/q"))[-1] == "Nothing on a.example answers GET /q."
    assert table.explain(Request("GET", "b.example", "/q")) == ["b.example is no host of this configuration."]


def test_of_equal_routes_the_first_wins() -> None:
    trie: RouteTrie[str] = RouteTrie()
    for text in ("/{a}/x", "/x/{a}", "/{b}/x", "/{c}", "/{d}", "/e", "/e"):
        trie.insert(Template.parse(text), text)
    assert trie.find("/x/x") == ("/{a}/x", {"a": "x"})
    assert trie.find("/q") == ("/{c}", {"c": "q"})
    assert len(trie) == 7


def test_literal_text_of_a_query_counts() -> None:
    trie: RouteTrie[str] = RouteTrie()
    for text in ("/x", "/x?v={v}", "/{y}?long-name=1"):
        trie.insert(Template.parse(text), text)
    assert trie.find("/x", "v=1") == ("/x?v={v}", {"v": "1"})
    assert trie.find("/x", None) == ("/x", {})
    assert trie.find("/x", "v=1&long-name=1") == ("/{y}?long-name=1", {"y": "x"})


def test_find_visits_few_routes_of_many() -> None:
    """Flat by construction: of ten thousand routes, only those that fit by prefix and suffix are tried."""
    tried: list[int] = []

    class Counted(Template):
        __slots__ = ()

        @property
        def plan(self):  # type: ignore[no-untyped-def]
            tried.append(1)
            return super().plan

    for shape in ("/{v}/f%d-{p}.zip", "/{v}/{p}-f%d.zip", "/p%d/{+x}", "/{+x}/p%d", "/p%d-{v}-{p}/x"):
        trie: RouteTrie[int] = RouteTrie()
        for number in range(10_000, 13_000):
            trie.insert(Counted.parse(shape % number), number)
        tried.clear()
        path = (shape % 12_345).replace("{v}", "1").replace("{p}", "2").replace("{+x}", "3/4")
        found = trie.find(path)
        assert found is not None
        assert found[0] == 12_345
        assert len(tried) == 1
