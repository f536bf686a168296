"""Presets: where well-known hosts of files keep them, so that a route can say `to = "github:acme/skates"`.

A preset and the route's path become one URL template, once, when configuration is loaded; nothing is asked of anybody.
What it becomes is the host's documented address for the file; docs/configuration.md lists them all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import unquote

# The value of {version} for which a forge itself knows which release is meant.
LATEST = "latest"


class PresetError(ValueError):
    """The text, or the path beside it, does not fit a preset: its author's fault. `sentence` says what would."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class Expanded(NamedTuple):
    """`url` is a URL template; `latest` the one that answers for version "latest", where that is another."""

    url: str
    latest: str | None = None


_PART = r"[A-Za-z0-9_.][A-Za-z0-9_.-]*"


class Forge(NamedTuple):
    """A host of projects. In its addresses: HOME the project's, NAME its last part, TAG, FILE, END of an archive.

    form      how a preset is written, for error messages
    archives  what follows the project's name where its source is meant
    endings   of archives, the longest of two that fit first
    shown     the address of a release's file as people paste it: home, tag and file
    """

    form: str
    host: str
    project: re.Pattern[str]
    release: str
    latest: str
    archive: str
    archives: str
    endings: tuple[str, ...]
    shown: re.Pattern[str]


FORGES = {
    # docs.github.com: "Linking to releases", "Downloading source code archives"
    "github": Forge(
        form="github:OWNER/REPOSITORY, github:OWNER/REPOSITORY/archive, either with @TAG behind it",
        host="github.com",
        project=re.compile(rf"{_PART}/{_PART}"),
        release="HOME/releases/download/TAG/FILE",
        latest="HOME/releases/latest/download/FILE",
        archive="HOME/archive/refs/tags/TAG.END",
        archives="/archive",
        endings=("tar.gz", "zip"),
        shown=re.compile(
            r"https://github\.com/([\w.-]+/[\w.-]+)/releases/(?:download/([^/]+)|latest/download)/([^/]+)", re.ASCII
        ),
    ),
    # docs.gitlab.com: "Release fields", permanent links; the archive is what a project's download button leads to
    "gitlab": Forge(
        form="gitlab:GROUP/PROJECT, gitlab:HOST/GROUP/PROJECT, either with /-/archive and with @TAG behind it",
        host="gitlab.com",
        project=re.compile(rf"{_PART}(?:/{_PART})+"),
        release="HOME/-/releases/TAG/downloads/FILE",
        latest="HOME/-/releases/permalink/latest/downloads/FILE",
        archive="HOME/-/archive/TAG/NAME-TAG.END",
        archives="/-/archive",
        endings=("tar.gz", "tar.bz2", "tar", "zip"),
        shown=re.compile(
            r"https://gitlab\.com/([\w./-]+)/-/releases/(?:([^/]+)|permalink/latest)/downloads/([^/]+)", re.ASCII
        ),
    ),
}
_TAG = re.compile(r"[A-Za-z0-9._+/{}-]+")
# A host before a project: it has a dot or a port, and a group and a project behind it.
_HOSTED = re.compile(r"([a-z0-9-]+(?:\.[a-z0-9-]+)+(?::[0-9]+)?|[a-z0-9-]+:[0-9]+)/(.+/.+)")
# The last part of a path, if it is made of text, {x} and {+x}.
_FILE = re.compile(r"/((?:[^/{}]|\{\+?\w+\})+)\Z")
_VERSION = re.compile(r"\{\+?version\}")

_PREFIX = r"(?P<prefix>(?:/[A-Za-z0-9._~-]+)*)/?"
_S3 = re.compile(rf"(?P<bucket>[a-z0-9-]{{3,63}})(?:@(?P<region>[a-z0-9-]+))?{_PREFIX}")
_GCS = re.compile(rf"(?P<bucket>[a-z0-9._-]{{3,63}}){_PREFIX}")
_S3_FORM = "s3:BUCKET/FOLDER or s3:BUCKET@REGION/FOLDER, a bucket without dots (certificates of S3 match no other)"
_GCS_FORM = "gcs:BUCKET/FOLDER"


def expand(text: str, path: str) -> Expanded | None:
    """What a route's `to` stands for, given its path; None if it is no preset. Raises PresetError."""
    name, colon, rest = text.partition(":")
    reader = _READERS.get(name) if colon else None
    if reader is None:
        return None
    if "?" in path or "{&" in path:
        raise PresetError(f"a path without query beside a preset, not {path}; or a whole URL here")
    return reader(rest, path)


def _forge(name: str) -> Callable[[str, str], Expanded]:
    def expanded(rest: str, path: str) -> Expanded:
        forge = FORGES[name]
        place, at, tag = rest.partition("@")
        host = forge.host
        if name == "gitlab" and (hosted := _HOSTED.fullmatch(place)):
            host, place = hosted.groups()
        # A project may be called "archive" itself.
        project = place if forge.project.fullmatch(place) else place.removesuffix(forge.archives)
        if not forge.project.fullmatch(project) or (at and not _TAG.fullmatch(tag)):
            raise PresetError(forge.form)
        said = _VERSION.search(path)
        tag = tag or (said[0] if said else "")
        values = {"HOME": f"https://{host}/{project}", "NAME": project.rpartition("/")[2], "TAG": tag}
        if project != place:
            return Expanded(_written(forge.archive, values | {"END": _ending(forge, path, tag)}))
        file = _FILE.search(path)
        if file is None:
            raise PresetError(f"a path whose last part names the file, such as /{{version}}/{{file}}; not {path}")
        values["FILE"] = file[1]
        latest = _written(forge.latest, values)
        if not tag:
            return Expanded(latest)
        return Expanded(_written(forge.release, values), latest if _VERSION.search(tag) else None)

    return expanded


def _ending(forge: Forge, path: str, tag: str) -> str:
    ending = next((one for one in forge.endings if path.endswith(f".{one}")), None)
    if ending is None or not tag:
        endings = " or ".join(f".{one}" for one in forge.endings)
        raise PresetError(f"a path with {{version}} that ends in {endings}, such as /{{version}}.tar.gz; not {path}")
    return ending


def _written(form: str, values: dict[str, str]) -> str:
    return re.sub("[A-Z]+", lambda word: values[word[0]], form)


def _s3(rest: str, path: str) -> Expanded:
    """docs.aws.amazon.com: "Virtual hosting of general purpose buckets"; in China the domain is another."""
    match = _S3.fullmatch(rest)
    if match is None:
        raise PresetError(_S3_FORM)
    region = match["region"]
    place = "s3" if region is None else f"s3.{region}"
    country = ".cn" if region is not None and region.startswith("cn-") else ""
    return Expanded(f"https://{match['bucket']}.{place}.amazonaws.com{country}{match['prefix']}{path}")


def _gcs(rest: str, path: str) -> Expanded:
    """docs.cloud.google.com: "Request endpoints", the path-style endpoint."""
    match = _GCS.fullmatch(rest)
    if match is None:
        raise PresetError(_GCS_FORM)
    return Expanded(f"https://storage.googleapis.com/{match['bucket']}{match['prefix']}{path}")


_READERS: dict[str, Callable[[str, str], Expanded]] = {
    **{name: _forge(name) for name in FORGES},
    "s3": _s3,
    "gcs": _gcs,
}
NAMES = tuple(_READERS)


class Shown(NamedTuple):
    """The file of a release as somebody pasted its address. `tag` None: of the latest."""

    preset: str
    project: str
    tag: str | None
    file: str


def shown(url: str) -> Shown | None:
    """What a pasted URL says, if it is the address of a release's file at a forge."""
    for name, forge in FORGES.items():
        if found := forge.shown.fullmatch(url):
            project, tag, file = found.groups()
            return Shown(f"{name}:{project}", project, None if tag is None else unquote(tag), file)
    return None
