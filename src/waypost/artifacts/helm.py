"""Helm chart repositories: an index.yaml that says where each chart is, and the charts (Helm: chart repository guide).

The index is given out with links to us. A chart that the repository itself has, in a file named after it, keeps its
path. All others, those on other hosts among them, get a path below `/-/`, and where that leads is looked up in the
index that was kept: nothing can be reached but what the upstream's index names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TypeAlias
from urllib.parse import quote, unquote, urlsplit

import msgspec

from waypost.artifacts.helm_index import Chart, Link, NotAnIndex, read_charts, relinked
from waypost.artifacts.kind import HostPolicy
from waypost.artifacts.page import fetch_page
from waypost.artifacts.target import followed
from waypost.artifacts.tree import OTHER, File, Reader, TreeRow, TreeSite, kind_of
from waypost.routing.decision import Decision, Fact, Fetch, Page, Redirect, Refuse, Reply
from waypost.routing.request import Request

INDEX = "/index.yaml"
# Where charts are that are not found by the name of their file.
ELSEWHERE = "/-/"

# NAME-VERSION.tgz, with a version as Helm wants it: SemVer 2, where a "v" before it is tolerated.
_PACKAGED = re.compile(r"(?:.*/)?(?P<name>[^/]+?)-(?P<version>v?\d+\.\d+\.\d+(?:[-+][0-9A-Za-z.+-]*)?)\.tgz", re.DOTALL)
_NO_CHART = Refuse(404, "NOT_FOUND", "The index of this repository names no such chart.")

# A chart that is looked up: where it is, its name, its version.
_Place: TypeAlias = tuple[str, str, str]
_decode_places = msgspec.json.Decoder(dict[str, _Place]).decode


class HelmRow(TreeRow, frozen=True, array_like=True, tag="helm"):
    pass


def read(path: str) -> File:
    """`charts/rocket-skates-1.2.0.tgz` → rocket-skates 1.2.0."""
    if path.endswith(".tgz"):
        match = _PACKAGED.fullmatch(path)
        name = match["name"] if match else path.rpartition("/")[2].removesuffix(".tgz")
        return File("binary-download", name, match["version"] if match else None, same=True)
    if path.endswith(".tgz.prov"):
        return File("", same=True)
    return File("index-fetch") if path == INDEX[1:] else OTHER


class HelmSite(TreeSite):
    def __init__(self, rows: Sequence[TreeRow], policy: HostPolicy, read: Reader) -> None:
        super().__init__(rows, policy, read)
        self._base = policy.base_url

    def decide(self, request: Request) -> Decision | None:
        if request.method in ("GET", "HEAD"):
            if request.path == INDEX:
                return self._index(request)
            if request.path.startswith(ELSEWHERE):
                return self._looked_up(request)
        return super().decide(request)

    def explain(self, request: Request) -> list[str]:
        lines = super().explain(request)
        if request.path.startswith(ELSEWHERE):
            lines.append(f"{self._row.package}: where a chart below {ELSEWHERE} is stands in the index, which is kept")
        return lines

    def _index(self, request: Request) -> Fetch:
        row = self._row
        facts = () if request.method == "HEAD" else (Fact(kind="index-fetch", package=row.package, owner=row.owner),)
        return self._page(Page("", facts, choose=_index_of, form="index"))

    def _looked_up(self, request: Request) -> Fetch:
        asked = unquote(request.path)
        chart = asked.removesuffix(".prov")

        def choose(kept: Reply) -> Redirect | Fetch | Refuse:
            place = _decode_places(kept.body[: kept.body.index(b"\n")]).get(chart)
            if place is None:
                return _NO_CHART
            url, name, version = place
            if chart == asked:
                return self._named(url, File("binary-download", name, version), request)
            parts = urlsplit(url)
            return self._named(parts._replace(path=f"{parts.path}.prov").geturl(), OTHER, request)

        return self._page(Page("", choose=choose))

    def _page(self, page: Page) -> Fetch:
        asked = " ".join(("helm", self._base, *self._row.upstreams))
        sources = [(f"{root}{INDEX}", lambda body, root=root: self._made(root, body)) for root in self._row.upstreams]
        return fetch_page(sources, msgspec.structs.replace(page, asked=asked))

    def _made(self, root: str, body: bytes) -> Reply | Refuse:
        """What is kept: a line of places, and the index with links to us."""
        places: dict[str, _Place] = {}
        try:
            text = body.decode()
            index = relinked(text, self._links(root, text, places))
        except UnicodeDecodeError:
            return _misread("it is no UTF-8 text")
        except NotAnIndex as error:
            return _misread(str(error))
        headers = (("content-type", "application/yaml"),)
        return Reply(200, headers, b"\n".join((msgspec.json.encode(places), index.encode())))

    def _links(self, root: str, text: str, places: dict[str, _Place]) -> Iterator[tuple[Link, str]]:
        for chart in read_charts(text):
            for link in chart.links:
                target = followed(f"{root}{INDEX}", link.url)
                if target is None:
                    continue  # oci:// among them: the client knows what to do with it
                beside = target.removeprefix(f"{root}/")
                if beside != target and _says(beside, chart):
                    yield link, f"{self._base}/{beside}"
                    continue
                path = f"{ELSEWHERE}{chart.name}-{chart.version}.tgz"
                places.setdefault(path, (target, chart.name, chart.version))
                yield link, self._base + quote(path)


def _says(path: str, chart: Chart) -> bool:
    """Whether the name of a file says which chart it is, so that nothing need be looked up."""
    file = read(unquote(path))
    return (file.name, file.version) == (chart.name, chart.version) and not {"?", "#"} & set(path)


def _index_of(kept: Reply) -> Reply:
    return msgspec.structs.replace(kept, body=kept.body[kept.body.index(b"\n") + 1 :])


def _misread(why: str) -> Refuse:
    return Refuse(502, "UPSTREAM_FAILED", f"The upstream's index.yaml is no index of charts: {why}.")


KIND = kind_of("helm", HelmRow, read, "https://charts.acme.example", site=HelmSite)
