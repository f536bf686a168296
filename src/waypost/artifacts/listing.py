"""The simple repository API: a project's page as upstreams write it, and as we give it out. Pure.

Read are HTML (PEP 503, with the attributes of PEP 592, 629, 658, 708, 714 and 792) and JSON (PEP 691, with what
PEP 700, 708, 714, 740 and 792 added). Both become the same two things: the page in JSON, with links to us, and a list
of where the files really are. They are kept together (`Listing`), so that every link which we have given out can be
followed. HTML is made of the JSON when somebody asks for it.

Pages may hold 100,000 files. Each is read, written and forgotten, so that memory is bounded by what comes in and goes
out, and no call into C takes long: other requests are answered meanwhile.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from html import escape, unescape
from io import BytesIO
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote, unquote, urljoin

import msgspec

from waypost.artifacts.target import followed

# PEP 691: an entry of "files". HTML is read into the same.
Entry: TypeAlias = dict[str, Any]

JSON, HTML, TEXT = "application/vnd.pypi.simple.v1+json", "application/vnd.pypi.simple.v1+html", "text/html"
OLDEST = "1.0"


class Unreadable(ValueError):
    """What an upstream sent is no project page; the message says why."""


class Place(NamedTuple):
    """Where a file really is. `metadata`, `signed`: files of that kind lie beside it (PEP 658, PEP 503)."""

    url: str
    metadata: bool
    signed: bool

    def beside(self, suffix: str) -> str:
        """The URL of a companion: the suffix belongs to the path, whatever query there is."""
        path, mark, query = self.url.partition("?")
        return f"{path}{suffix}{mark}{query}"


_DIGITS = 20  # of the length of the JSON, at the end of a kept listing
_BATCH = 1000


class Listing:
    """A page as it is kept: JSON, files, one after another, and how long the first is."""

    __slots__ = ("_kept", "_start")

    def __init__(self, kept: bytes) -> None:
        self._kept = kept
        self._start = int(kept[-_DIGITS:])

    def page(self, media_type: str) -> bytes:
        page = self._kept[: self._start]
        return page if media_type == JSON else _html(page)

    def place(self, file: str) -> Place | None:
        try:
            line = f"\n{file}\t".encode()
        except UnicodeEncodeError:  # half a character names no file
            return None
        found = self._kept.find(line, self._start)
        if found < 0 or "\t" in file or "\n" in file:
            return None
        start = found + len(line)
        url, _, flags = self._kept[start : self._kept.index(b"\n", start)].decode().partition("\t")
        return Place(url, "m" in flags, "s" in flags)


def kept_of(body: bytes, content_type: str, url: str, name: str, links: str) -> bytes:
    """An upstream's page → what is kept of it. Raises Unreadable.

    content_type  as the upstream said it
    url           where the page was found: links may be relative to it
    name          the project's normalised name
    links         what our links to its files begin with
    """
    kept = _Kept(url, links)
    try:
        if "json" in content_type.lower():
            top = _read_json(body.decode(), kept.add)
        else:
            top = _read_html(body.decode("utf-8", "replace"), kept.add)
            if not top.pop("said", False) and not kept.many:
                # Old pages do not say what they are: an error page in the place of an index has no files.
                raise Unreadable("a page of HTML without a link to any file, which says of itself no version either")
        return kept.whole(top, name)
    except Unreadable:
        raise
    except (ValueError, RecursionError, msgspec.MsgspecError, TypeError) as error:
        raise Unreadable(f"no page of the simple repository API ({str(error)[:100]})") from None


class _Kept:
    """Takes entries as they are read, and writes what is kept of them."""

    def __init__(self, url: str, links: str) -> None:
        self._url = url
        self._links = links
        self._seen: set[str] = set()
        self._begins: dict[str, str] = {}
        self._json: list[bytes] = []
        self._files: list[bytes] = []
        self.many = 0

    def add(self, entry: Entry) -> None:
        """A file; what cannot be fetched, or bears a name that is none, is left out."""
        file, url = entry.get("filename"), entry.get("url")
        if not isinstance(file, str) or not isinstance(url, str):
            raise Unreadable("a file without filename or url")
        url = self._where(url.partition("#")[0])
        if not url or not _is_name(file) or file in self._seen:
            return
        self._seen.add(file)
        self.many += 1
        link = self._links + (file if _PLAIN.fullmatch(file) else quote(file, safe=""))
        self._json.append(msgspec.json.encode({**entry, "url": link}))
        flags = ("m" if _metadata(entry) else "") + ("s" if entry.get("gpg-sig") is not False else "")
        self._files.append(f"{file}\t{url}\t{flags}".encode())

    def _where(self, link: str) -> str:
        """The URL that a link on the page leads to; "" if we would not go there.

        Most links begin as one before them did; of those only the rest is new, and only its dots can lead astray.
        """
        if _PLAIN.fullmatch(link) is None:
            link = quote(link, safe=_MAY_STAND)
        end = link.find("/", 8) + 1 if link.startswith("http") else link.startswith("/") and not link.startswith("//")
        begin = self._begins.get(link[:end]) if end else None
        if begin is not None and "/." not in link:
            return begin + link[end:]
        url = followed(self._url, link) or ""
        if end and url.endswith(link[end:]):
            self._begins[link[:end]] = url[: len(url) - len(link) + end]
        return url

    def whole(self, top: dict[str, Any], name: str) -> bytes:
        meta = {**top.pop("meta", {}), "api-version": top.pop("version")}
        head = msgspec.json.encode({"meta": meta, **top, "name": name})
        out = BytesIO()
        _write(out, head[:-1] + b',"files":[', self._json, b",", b"]}")
        start = out.tell()
        _write(out, b"\n", self._files, b"\n", b"\n")
        out.write(f"{start:>{_DIGITS}}".encode())
        return out.getvalue()


def _write(out: BytesIO, head: bytes, pieces: list[bytes], between: bytes, tail: bytes) -> None:
    """In batches: one join of them all would hold up the whole process."""
    out.write(head)
    starts = range(0, len(pieces), _BATCH)
    out.writelines((between if start else b"") + between.join(pieces[start : start + _BATCH]) for start in starts)
    out.write(tail)
    pieces.clear()


def _is_name(file: str) -> bool:
    return file.isprintable() and not set(file) & set("/\\") and file.strip(".") != ""


# RFC 3986 section 2: what may stand in a URL. The rest of what somebody else wrote is encoded.
_MAY_STAND = "%:/?[]@!$&'()*+,;="
_PLAIN = re.compile(r"[A-Za-z0-9._~/:-]*")


# --- HTML


def _html(page: bytes) -> bytes:
    """A page of ours in the other form."""
    anchors: list[bytes] = []
    top = _read_json(page.decode(), lambda entry: anchors.append(_anchor(entry).encode()))
    out = BytesIO()
    _write(out, _html_head(top).encode(), anchors, b"\n", b"\n</body></html>\n")
    return out.getvalue()


def _anchor(entry: Entry) -> str:
    attributes = f' href="{entry["url"]}{_fragment(entry.get("hashes"))}"'
    if requires := entry.get("requires-python"):
        attributes += f' data-requires-python="{escape(str(requires))}"'
    if metadata := _metadata(entry):
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


def _metadata(entry: Mapping[str, Any]) -> dict[str, str] | bool:
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
    for tag, attributes in _tags(text):
        if tag == "a" and "href" in attributes:
            entry = _entry(urljoin(base, attributes["href"]) if base else attributes["href"], attributes)
            if _FILE.search(entry["filename"]):
                add(entry)
        elif tag == "base" and not base:
            base = attributes.get("href", "")
        elif tag == "meta":
            _note(top, attributes.get("name", ""), attributes.get("content", ""))
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


def _note(top: dict[str, Any], name: str, content: str) -> None:
    """What a <meta> says of the project."""
    if name == "pypi:repository-version":
        _check_version(content)
        top["said"] = True
    elif name == "pypi:tracks":
        top.setdefault("meta", {}).setdefault("tracks", []).append(content)
    elif name == "pypi:alternate-locations":
        top.setdefault("alternate-locations", []).append(content)
    elif name == "pypi:project-status":
        top.setdefault("project-status", {})["status"] = content
    elif name == "pypi:project-status-reason":
        top.setdefault("project-status", {})["reason"] = content


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


__all__ = ["HTML", "JSON", "TEXT", "Listing", "Place", "Unreadable", "kept_of"]
