"""Python files that a manifest lists one by one (python-v1): a simple index (PEP 503) and redirects to the files."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from html import escape
from urllib.parse import quote, unquote, urlsplit

from msgspec import Struct

from waypost.artifacts.kind import HostPolicy, Kind, Reach, origins
from waypost.artifacts.release import normalise
from waypost.routing.condition import unless_known
from waypost.routing.decision import Decision, Fact, Redirect, Refuse, Reply
from waypost.routing.request import Request


class PythonFileRow(Struct, frozen=True, array_like=True, tag="python-file"):
    """One file of a project. `hash` is "TYPE=HEX"; `url` is where the file really is."""

    project: str
    file: str
    version: str
    url: str
    package: str
    owner: str | None = None
    hash: str | None = None
    gpg_sig: bool | None = None
    requires_python: str | None = None


def _anchor(row: PythonFileRow) -> str:
    href = quote(row.file) + (f"#{row.hash}" if row.hash else "")
    attributes = f' href="{escape(href)}"'
    if row.requires_python:
        attributes += f' data-requires-python="{escape(row.requires_python)}"'
    if row.gpg_sig is not None:
        attributes += f' data-gpg-sig="{str(row.gpg_sig).lower()}"'
    return f"<a{attributes}>{escape(row.file)}</a><br>"


def _page(title: str, anchors: list[str]) -> tuple[str, bytes]:
    """(ETag, HTML). The ETag is strong: equal bytes, equal tag (RFC 9110 section 8.8.3)."""
    lines = [
        "<!DOCTYPE html>",
        f'<html><head><meta name="pypi:repository-version" content="1.0"><title>{escape(title)}</title></head><body>',
        *anchors,
        "</body></html>",
    ]
    body = "\n".join(lines).encode()
    return f'"{b64encode(sha256(body).digest()).decode()}"', body


class PythonFileSite:
    """`/simple/`, `/simple/NAME/` and `/simple/NAME/FILE` for the files of the rows."""

    def __init__(self, rows: Sequence[PythonFileRow], policy: HostPolicy) -> None:
        self._files: dict[tuple[str, str], PythonFileRow] = {}
        projects: dict[str, list[PythonFileRow]] = {}
        for row in rows:
            key = (normalise(row.project), row.file)
            if key not in self._files:
                self._files[key] = row
                projects.setdefault(key[0], []).append(row)
        self._base_url = policy.base_url
        self._root = _page("Simple index", [f'<a href="{name}/">{escape(name)}</a><br>' for name in sorted(projects)])
        self._pages = {
            name: (_page(f"Links for {name}", [_anchor(row) for row in files]), files[0])
            for name, files in projects.items()
        }

    def decide(self, request: Request) -> Decision | None:
        path = request.path
        if path != "/simple" and not path.startswith("/simple/"):
            return None
        if request.method not in ("GET", "HEAD"):
            return Refuse(405, "UNSUPPORTED", "An index is read with GET.", (("allow", "GET, HEAD"),))
        project, slash, file = path[len("/simple/") :].partition("/")
        if not project:
            if path == "/simple":
                return Redirect(f"{self._base_url}/simple/", status=301)
            return _answer(request, *self._root, None)
        name = normalise(unquote(project))
        if name not in self._pages:
            return Refuse(404, "NOT_FOUND", f"This index has no project {unquote(project)!r}.")
        if not slash or (not file and name != project):
            # PEP 503: one spelling of each URL, with a trailing slash.
            return Redirect(f"{self._base_url}/simple/{name}/", status=301)
        if not file:
            page, first = self._pages[name]
            return _answer(request, *page, Fact(kind="index-fetch", package=first.package, owner=first.owner))
        row = self._files.get((name, unquote(file)))
        if row is None:
            return Refuse(404, "NOT_FOUND", f"Project {name!r} has no file {unquote(file)!r}.")
        return Redirect(row.url, () if request.method == "HEAD" else (_download(row),))

    def explain(self, request: Request) -> list[str]:
        if request.path != "/simple" and not request.path.startswith("/simple/"):
            return []
        return [f"Python index of {len(self._pages)} project{'s' * (len(self._pages) != 1)} from a manifest"]


def _download(row: PythonFileRow) -> Fact:
    return Fact(
        kind="binary-download",
        package=row.package,
        owner=row.owner,
        version=row.version,
        artifact=row.file,
        upstream=urlsplit(row.url).netloc,
    )


def _answer(request: Request, etag: str, body: bytes, fact: Fact | None) -> Reply:
    headers = (("content-type", "text/html; charset=utf-8"), ("etag", etag), ("vary", "accept"))
    facts = () if fact is None or request.method == "HEAD" else (fact,)
    return unless_known(request, Reply(200, headers, body, facts))


def reach(rows: Sequence[PythonFileRow]) -> Reach:
    return Reach(origins(row.url for row in rows))


KIND = Kind(name="python-file", order=30, row=PythonFileRow, site=PythonFileSite, reach=reach)
