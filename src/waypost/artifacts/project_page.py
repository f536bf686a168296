"""The simple repository API: a project's page as upstreams write it, in HTML or JSON, and as we write HTML. Pure.

Read are HTML (PEP 503, with the attributes of PEP 592, 629, 658, 708, 714 and 792) and JSON (PEP 691, with what
PEP 700, 708, 714, 740 and 792 added). HTML is read into what JSON would have said.

Pages may hold 100,000 files. Each is read and handed on by itself, so that no call into C takes long: other requests
are answered meanwhile.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from html import escape, unescape
from io import BytesIO
from typing import Any, TypeAlias
from urllib.parse import unquote, urljoin

# PEP 691: an entry of "files". HTML is read into the same.
Entry: TypeAlias = dict[str, Any]

JSON, HTML, TEXT = "application/vnd.pypi.simple.v1+json", "application/vnd.pypi.simple.v1+html", "text/html"
OLDEST = "1.0"
_BATCH = 1000


class Unreadable(ValueError):
    """What an upstream sent is no project page; the message says why."""


def read_page(body: bytes, content_type: str, add: Callable[[Entry], None]) -> dict[str, Any]:
    """Everything that a page says but its files, which go to `add` one by one; "version" is that of the API.

    content_type  as the upstream said it

    Raises ValueError (Unreadable, mostly), RecursionError or TypeError.
    """
    if "json" in content_type.lower():
        return _read_json(body.decode(), add)
    return _read_html(body.decode("utf-8", "replace"), add)


def write_joined(out: BytesIO, head: bytes, pieces: list[bytes], between: bytes, tail: bytes) -> None:
    """In batches: one join of them all would hold up the whole process."""
    out.write(head)
    starts = range(0, len(pieces), _BATCH)
    out.writelines((between if start else b"") + between.join(pieces[start : start + _BATCH]) for start in starts)
    out.write(tail)
    pieces.clear()


# --- HTML


def html_of(page: bytes) -> bytes:
    """A page of ours in the other form."""
    anchors: list[bytes] = []
    top = _read_json(page.decode(), lambda entry: anchors.append(_anchor(entry).encode()))
    out = BytesIO()
    write_joined(out, _html_head(top).encode(), anchors, b"\n", b"\n</body></html>\n")
    return out.getvalue()


def _anchor(entry: Entry) -> str:
    attributes = f' href="{entry["url"]}{_fragment(entry.get("hashes"))}"'
    if requires := entry.get("requires-python"):
        attributes += f' data-requires-python="{escape(str(requires))}"'
    if metadata := metadata_of(entry):
        # PEP 714: under both names, for clients of either age.
        said = "true" if metadata is True else escape("=".join(next(iter(metadata.items()))))
        attributes += f' data-core-metadata="{said}" data-dist-info-metadata="{said}"'
    if isinstance(entry.get("gpg-sig"), bool):
        attributes += f' data-gpg-sig="{str(entry["gpg-sig"]).lower()}"'
    if yanked := entry.get("yanked"):
        attributes += f' data-yanked="{escape(yanked) if isinstance(yanked, str) else ""}"'
    if provenance := entry.get("provenance"):
        attributes += f' data-provenance="{escape(str(provenance))}"'
    return f"<a{attributes}>{escape(entry['filename'])}</a><br>"


def _fragment(hashes: Any) -> str:
    """PEP 503: one hash, and sha256 by preference."""
    if not isinstance(hashes, dict) or not hashes:
        return ""
    algorithm = "sha256" if "sha256" in hashes else next(iter(hashes))
    digest = hashes[algorithm]
    if not isinstance(digest, str) or not digest.isalnum() or not algorithm.isalnum():
        return ""
    return f"#{algorithm}={digest}"


def metadata_of(entry: Mapping[str, Any]) -> dict[str, str] | bool:
    """PEP 714: the new name first, then those that went before. {} and False: there is no metadata file."""
    for key in ("core-metadata", "dist-info-metadata", "data-dist-info-metadata"):
        said = entry.get(key)
        if said is not None:
            return {str(name): str(value) for name, value in said.items()} if isinstance(said, dict) else bool(said)
    return False


def _html_head(top: Mapping[str, Any]) -> str:
    meta, status = top["meta"], top.get("project-status")
    said = [("pypi:repository-version", meta["api-version"])]
    said += [("pypi:tracks", url) for url in meta.get("tracks", ())]
    said += [("pypi:alternate-locations", url) for url in top.get("alternate-locations", ())]
    if isinstance(status, dict):
        said += [
            (f"pypi:project-status{end}", status[key])
            for key, end in (("status", ""), ("reason", "-reason"))
            if status.get(key)
        ]
    lines = "".join(f'<meta name="{key}" content="{escape(str(value))}">' for key, value in said)
    title = f"Links for {escape(top['name'])}"
    return f"<!DOCTYPE html>\n<html><head>{lines}<title>{title}</title></head><body>\n<h1>{title}</h1>\n"


_START = re.compile(r"<(?:!--|(a|base|meta)(?=[\s/>]))", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"""[\s/]*([^\s/>=]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>"'][^\s>]*)))?""")
_END = re.compile(r"[\s/]*>")
# Pages made by web servers link to other things, too.
_FILE = re.compile(r"\.(?:whl|zip|egg|exe|msi|tar\.(?:gz|bz2|xz|Z)|tgz|tbz)\Z")
# A page's own words → where JSON has them.
_ATTRIBUTES = {
    "data-requires-python": "requires-python",
    "data-core-metadata": "core-metadata",
    "data-dist-info-metadata": "core-metadata",
    "data-gpg-sig": "gpg-sig",
    "data-yanked": "yanked",
    "data-provenance": "provenance",
}


def _read_html(text: str, add: Callable[[Entry], None]) -> dict[str, Any]:
    top: dict[str, Any] = {"version": OLDEST}
    base = ""
    is_page = False
    for tag, attributes in _tags(text):
        if tag == "a" and "href" in attributes:
            entry = _entry(urljoin(base, attributes["href"]) if base else attributes["href"], attributes)
            if _FILE.search(entry["filename"]):
                add(entry)
                is_page = True
        elif tag == "base" and not base:
            base = attributes.get("href", "")
        elif tag == "meta":
            is_page |= _note(top, attributes.get("name", ""), attributes.get("content", ""))
    if not is_page:
        # Old pages do not say what they are: an error page in the place of an index has no files.
        raise Unreadable("a page of HTML without a link to any file, which says of itself no version either")
    return top


def _tags(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Start tags that matter. One that does not end is an error, or a hostile page would be searched for ever."""
    position = 0
    while found := _START.search(text, position):
        position = found.end()
        if found[1] is None:
            position = text.find("-->", position)
            if position < 0:
                raise Unreadable("a comment that does not end")
            continue
        attributes: dict[str, str] = {}
        while (end := _END.match(text, position)) is None:
            one = _ATTRIBUTE.match(text, position)
            if one is None:
                raise Unreadable("a tag that does not end")
            value = one[2] or one[3] or one[4] or ""
            attributes.setdefault(one[1].lower(), unescape(value) if "&" in value else value)
            position = one.end()
        position = end.end()
        yield found[1].lower(), attributes


def _entry(href: str, attributes: Mapping[str, str]) -> Entry:
    url, _, fragment = href.partition("#")
    algorithm, mark, digest = fragment.partition("=")
    path = url.partition("?")[0]
    entry: Entry = {
        # PEP 503: the last component of the URL is the file's name.
        "filename": unquote(path.rpartition("/")[2]),
        "url": url,
        "hashes": {algorithm: digest} if mark and algorithm.isalnum() and digest.isalnum() else {},
    }
    for attribute, key in _ATTRIBUTES.items():
        if attribute in attributes and key not in entry:
            entry[key] = _VALUES.get(key, str)(attributes[attribute])
    return entry


def _hashed(value: str) -> dict[str, str] | bool:
    algorithm, mark, digest = value.partition("=")
    return {algorithm: digest} if mark else value != "false"


_VALUES: dict[str, Callable[[str], Any]] = {
    "core-metadata": _hashed,
    "gpg-sig": lambda value: value == "true",
    "yanked": lambda value: value or True,
}


def _note(top: dict[str, Any], name: str, content: str) -> bool:
    """What a <meta> says of the project. True if it says that this is a page of the simple repository API."""
    if name == "pypi:repository-version":
        _check_version(content)
        return True
    if name == "pypi:tracks":
        top.setdefault("meta", {}).setdefault("tracks", []).append(content)
    elif name == "pypi:alternate-locations":
        top.setdefault("alternate-locations", []).append(content)
    elif name == "pypi:project-status":
        top.setdefault("project-status", {})["status"] = content
    elif name == "pypi:project-status-reason":
        top.setdefault("project-status", {})["reason"] = content
    return False


def _check_version(version: object) -> str:
    """PEP 629: another major version cannot be read."""
    if not isinstance(version, str) or not re.fullmatch(r"1\.[0-9]{1,4}", version):
        raise Unreadable(f"version {str(version)[:20]!r} of the simple repository API, of which 1.x is known here")
    return version


# --- JSON


def _number(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


_decode = json.JSONDecoder(parse_constant=_number).raw_decode
_SPACE = re.compile(r"[ \t\n\r]*")


def _read_json(text: str, add: Callable[[Entry], None]) -> dict[str, Any]:
    """Everything but the files, which go to `add` one by one: a call for all of them would take too long."""
    top: dict[str, Any] = {}
    position = _after(text, 0, "{")
    while text[position : position + 1] != "}":
        key, position = _decode(text, position)
        position = _after(text, position, ":")
        if key == "files":
            position = _read_files(text, _after(text, position, "["), add)
        else:
            top[key], position = _decode(text, position)
        position = _next(text, position, "}")
    if _SPACE.match(text, position + 1).end() != len(text):  # type: ignore[union-attr]
        raise Unreadable("JSON with something behind it")
    return _checked(top)


def _read_files(text: str, position: int, add: Callable[[Entry], None]) -> int:
    """Returns the place behind the list."""
    while text[position : position + 1] != "]":
        entry, position = _decode(text, position)
        if not isinstance(entry, dict):
            raise Unreadable("a file that is no object")
        if not isinstance(entry.setdefault("hashes", {}), dict):
            raise Unreadable("hashes that are no object")
        add(entry)
        position = _next(text, position, "]")
    return position + 1


def _after(text: str, position: int, mark: str) -> int:
    """The next value's place, behind `mark` and the blanks on both sides."""
    position = _SPACE.match(text, position).end()  # type: ignore[union-attr]
    if text[position : position + 1] != mark:
        raise Unreadable(f"JSON without the {mark} that should follow")
    return _SPACE.match(text, position + 1).end()  # type: ignore[union-attr]


def _next(text: str, position: int, end: str) -> int:
    """Behind the comma, or at the end."""
    position = _SPACE.match(text, position).end()  # type: ignore[union-attr]
    if text[position : position + 1] == end:
        return position
    position = _after(text, position, ",")
    if text[position : position + 1] == end:
        raise Unreadable("JSON with a comma at the end")
    return position


def _checked(top: dict[str, Any]) -> dict[str, Any]:
    meta = top.get("meta")
    if not isinstance(meta, dict) or not isinstance(top.get("name"), str):
        raise Unreadable("JSON that is no project page: meta or name is missing")
    for key, where in (("tracks", meta), ("alternate-locations", top)):
        if not isinstance(where.get(key, []), list):
            raise Unreadable(f"{key} that is no list")
    return {**top, "version": _check_version(meta.get("api-version"))}
