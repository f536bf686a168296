"""What a manifest says about itself: is it an image, an index, a chart, a signature, and what does it list.

Only what counting needs is read. A manifest that we do not understand is still served as it is.
"""

from __future__ import annotations

import hashlib
import re

import msgspec
from msgspec import Struct

# Annotation of BuildKit's attestation manifests in an index; their platform is unknown/unknown.
_REFERENCE_TYPE = "vnd.docker.reference.type"
# Signed schema 1: its digest is that of the payload inside the signature, not of the bytes.
SIGNED_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"

INDEX_TYPES = frozenset(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    )
)
# Media type (an artifactType, or of the config, or of the first layer) → artifact. A trailing "*" is a
# prefix.
ARTIFACTS: tuple[tuple[str, str], ...] = (
    ("application/vnd.cncf.helm.config.v1+json", "chart"),
    ("application/vnd.dev.cosign.simplesigning.v1+json", "signature"),
    ("application/vnd.dev.cosign.artifact.sig.v1+json", "signature"),
    ("application/vnd.cncf.notary.signature", "signature"),
    ("application/vnd.dev.sigstore.bundle*", "signature"),
    ("application/vnd.dsse.envelope.v1+json", "attestation"),
    ("application/vnd.in-toto*", "attestation"),
    ("application/vnd.dev.cosign.artifact.sbom.v1+json", "sbom"),
    ("application/spdx*", "sbom"),
    ("text/spdx*", "sbom"),
    ("application/vnd.cyclonedx*", "sbom"),
    ("application/vnd.syft*", "sbom"),
)
_EXACT = {media: artifact for media, artifact in ARTIFACTS if not media.endswith("*")}
_PREFIXES = tuple((media[:-1], artifact) for media, artifact in ARTIFACTS if media.endswith("*"))
_IMAGE_CONFIGS = frozenset(
    ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
)
# cosign keeps what belongs to an image under a tag made of the image's digest.
_COSIGN_TAG = re.compile(r"sha256-[a-f0-9]{64}\.(sig|att|sbom)")
_COSIGN = {"sig": "signature", "att": "attestation", "sbom": "sbom"}


class _Platform(Struct):
    os: str = ""
    architecture: str = ""
    variant: str = ""


class _Descriptor(Struct, rename="camel"):
    media_type: str = ""
    digest: str = ""
    platform: _Platform | None = None
    annotations: dict[str, str] | None = None


class _Manifest(Struct, rename="camel"):
    schema_version: int = 2
    media_type: str = ""
    artifact_type: str = ""
    config: _Descriptor | None = None
    manifests: list[_Descriptor] | None = None
    layers: list[_Descriptor] | None = None
    subject: _Descriptor | None = None


class Summary(Struct, frozen=True):
    """artifact    image, index, chart, signature, attestation, sbom; referrer: what else refers to an image;
                artifact: anything else; other: what is no manifest that we can read
    lists       of an index: child digest → "os/arch[/variant]", or ""; "unknown/unknown" for attestations
    media_type  as the manifest itself says, or ""
    config      of an image: the digest of its config, which names its platform
    """

    artifact: str
    lists: dict[str, str] | None = None
    media_type: str = ""
    config: str | None = None


_decode = msgspec.json.Decoder(_Manifest).decode


def digest_matches(digest: str, body: bytes) -> bool:
    """Whether `body` has this digest. `digest` is one that `reference.is_digest` accepts."""
    algorithm, _, encoded = digest.partition(":")
    return hashlib.new(algorithm, body, usedforsecurity=False).hexdigest() == encoded


def digest_of(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def is_object(body: bytes) -> bool:
    """Whether this is a JSON object, as every manifest and every list of a registry is."""
    try:
        msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def summarise(body: bytes, content_type: str = "", tag: str | None = None) -> Summary:
    """What a manifest is. `content_type` as the registry said; `tag` if asked for by one. Never raises."""
    cosign = _COSIGN_TAG.fullmatch(tag) if tag else None
    try:
        manifest = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Summary(_COSIGN[cosign[1]] if cosign else "other")
    media_type = manifest.media_type or content_type
    if cosign:
        return Summary(_COSIGN[cosign[1]], None, manifest.media_type)
    if manifest.subject is None and (media_type in INDEX_TYPES or manifest.manifests is not None):
        lists = {one.digest: _platform(one) for one in manifest.manifests or () if one.digest}
        return Summary("index", lists, manifest.media_type)
    artifact = _artifact(manifest)
    config = manifest.config.digest if manifest.config and artifact == "image" else None
    return Summary(artifact, None, manifest.media_type, config or None)


def platform_of_config(body: bytes) -> str:
    """ "os/arch[/variant]" of an image config (OCI image specification, config.md), or "" if it does not say."""
    try:
        return _written(msgspec.json.decode(body, type=_Platform))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


def _artifact(manifest: _Manifest) -> str:
    config = manifest.config.media_type if manifest.config else ""
    layer = manifest.layers[0].media_type if manifest.layers else ""
    for media_type in (manifest.artifact_type, config, layer):
        if known := _known(media_type):
            return known
    if manifest.subject is not None:
        return "referrer"
    return "image" if config in _IMAGE_CONFIGS or manifest.schema_version == 1 else "artifact"


def _known(media_type: str) -> str | None:
    if media_type in _EXACT:
        return _EXACT[media_type]
    return next((artifact for prefix, artifact in _PREFIXES if media_type.startswith(prefix)), None)


def _platform(child: _Descriptor) -> str:
    platform = child.platform
    if _REFERENCE_TYPE in (child.annotations or ()):
        return "unknown/unknown"  # as BuildKit itself writes
    return "" if platform is None else _written(platform)


def _written(platform: _Platform) -> str:
    parts = (platform.os, platform.architecture, platform.variant)
    return "/".join(part for part in parts if part)
