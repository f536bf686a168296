"""Names of images and registries: the grammar of the OCI distribution spec, and what people paste.

Nothing here asks anybody; whether an image exists is the registry's to say.
"""

from __future__ import annotations

import re
import shlex

from msgspec import Struct

from waypost.artifacts import registries

DOCKER_HUB = registries.asked("docker.io")

# OCI distribution spec 1.1, "Pulling manifests": <name> and <reference>. Many clients limit names to 255.
LONGEST_NAME = 255
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
# OCI image spec, "Digests": the registered algorithms, each with its length and lower case.
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}")
# RFC 1123 names, as the reference grammar has them, and bracketed IPv6.
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]+\])(?::[0-9]{{1,5}})?")

_COMMANDS = frozenset(
    ("docker", "podman", "nerdctl", "buildah", "finch", "crane", "ctr", "image", "images", "sudo", "$", "#")
)
_SCHEMES = ("docker://", "oci://")
# Options of `docker pull` and its kin that take a value in the next word.
_VALUED = frozenset(
    ("--platform", "--arch", "--os", "--variant", "--creds", "--authfile", "--cert-dir", "--retry", "-n")
)


class ImageNameError(ValueError):
    """The operator's fault: not the name of an image. The message is a sentence that says why."""


class ImageName(Struct, frozen=True):
    """`registry` is the host that answers under /v2/, lower case, with :PORT if it has one."""

    registry: str
    repository: str

    @property
    def scope(self) -> str:
        return f"repository:{self.repository}:pull"

    def url(self, path: str) -> str:
        """Of "manifests/1.0" and the like in this repository (OCI distribution specification, "Endpoints")."""
        return f"https://{self.registry}/v2/{self.repository}/{path}"


def is_name(text: str) -> bool:
    return len(text) <= LONGEST_NAME and _NAME.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    return _TAG.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def parse_registry(text: str) -> str:
    """`ghcr.io`, `docker.io`, `localhost:5000` → the host to ask. Raises ImageNameError."""
    host = registries.asked(text.lower())
    if not _REGISTRY.fullmatch(host):
        raise ImageNameError(f"{text!r} is not a host name, with :PORT if it has one.")
    return host


def qualify(registry: str, repository: str) -> ImageName:
    """A repository on a registry; on Docker Hub a name of one segment lives under `library/`."""
    if registry == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    return ImageName(registry, repository)


def parse_upstream(text: str) -> ImageName:
    """Reads an image as people write it: `x`, `acme/x`, `ghcr.io/acme/x:1.0`, `docker pull …`, `docker://…`, or the
    address of its web page.

    Tags and digests are dropped: a package is all its versions. Raises ImageNameError.
    """
    registry, name = _written(text)
    return qualify(parse_registry(registry) if registry else DOCKER_HUB, name)


def as_written(text: str) -> tuple[str, str]:
    """The same as its author spells it: (`quay.io/acme/x`, `acme/x`), (`x`, `x`). Raises ImageNameError."""
    registry, name = _written(text)
    return f"{registry}/{name}" if registry else name, name


def _written(text: str) -> tuple[str, str]:
    """(registry, name), both as they stand there; registry "" if none does."""
    name, _, digest = _strip_scheme(_image_word(text)).partition("@")
    if digest and not is_digest(digest):
        raise ImageNameError(f"{digest!r} is not a digest (sha256:… with 64 hexadecimal digits, or sha512:… with 128).")
    registry, name = _split_registry(name)
    name, colon, tag = name.partition(":")
    if colon and not is_tag(tag):
        raise ImageNameError(f"{tag!r} is not a tag.")
    if not is_name(name):
        raise ImageNameError(
            f"{name!r} is not an image name: lower-case letters, digits and single separators (. _ - /), "
            f"at most {LONGEST_NAME} characters."
        )
    if registry:
        parse_registry(registry)
    return registry, name


def _image_word(text: str) -> str:
    """The image out of a pasted line; a lone word is the image."""
    try:
        words = shlex.split(text)
    except ValueError:
        raise ImageNameError(f"{text!r} cannot be read: a quotation mark is not closed.") from None
    if len(words) == 1:
        return words[0]
    if "pull" not in words:
        raise ImageNameError(f"{text!r} is neither an image name nor a `docker pull …` command.")
    at = words.index("pull")
    if strange := [word for word in words[:at] if word not in _COMMANDS]:
        raise ImageNameError(f"{strange[0]!r} is not known in front of `pull`.")
    images = []
    rest = iter(words[at + 1 :])
    for word in rest:
        if word in _VALUED:
            next(rest, None)
        elif not word.startswith("-"):
            images.append(word)
    if len(images) != 1:
        raise ImageNameError(f"{text!r} names {len(images) or 'no'} images; exactly one is expected.")
    return images[0]


def _strip_scheme(word: str) -> str:
    for scheme in _SCHEMES:
        if word.startswith(scheme):
            return word[len(scheme) :]
    if "://" in word:
        return _on_page(word, word)
    # A page's address as browsers show it. On a registry's own host it is a name as it stands.
    host = word.partition("/")[0].lower()
    return _on_page(word, f"https://{word}") if "." in host and registries.find(host) is None else word


def _on_page(word: str, url: str) -> str:
    """The image that a web page is about; if it is no page that we know, the word itself, unless that is a URL."""
    if image := registries.image_at(url):
        return image
    if registry := registries.shown_at(url):
        raise ImageNameError(
            f"{word!r} is a page of {registry.label}, but not of one image; write the image as in `docker pull`."
        )
    if word == url:
        raise ImageNameError(f"{word!r} is a URL; write the image as in `docker pull`, without a scheme.")
    return word


def _split_registry(name: str) -> tuple[str, str]:
    """(registry, rest). The first part is a registry if it cannot be a user of Docker Hub."""
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first, rest
    return "", name
