"""The snapshot: the compiled, immutable routing table that gateways serve from, as bytes.

Layout, all numbers little-endian:

    magic      8 bytes  "WAYPOST1"
    checksum   4 bytes  CRC-32 of everything after it
    policy     4 bytes length, then msgpack of Policy
    count      8 bytes  n, the number of hosts; padding to a multiple of 8
    index      n × 8 hashes, ascending; n × 8 offsets; n × 8 lengths
    blobs      msgpack of [host, HostPolicy, rows], one per host

Hosts are found by bisecting the index inside the mapped file. So a million routes cost a worker nothing until
a host is asked for, and workers share the pages. A host is compiled when it is first asked.
"""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import cache
from hashlib import blake2b
from itertools import pairwise
from typing import Any, Union, get_args

import msgspec
from msgspec import Struct

from waypost.artifacts.kind import HostPolicy, Kind
from waypost.artifacts.registry import kinds
from waypost.artifacts.secure import SecureSite
from waypost.routing.site import Site

MAGIC = b"WAYPOST1"


class SnapshotError(Exception):
    """The bytes are no snapshot of this version, or damaged. Ours or the disk's fault, never a client's."""


class UpstreamRow(Struct, frozen=True, array_like=True):
    """A declared upstream: `connect` (a base URL) is where https://HOST/… is really fetched from.

    Of the operator's account there, the name and where its password is found; the password itself is never here.
    """

    host: str
    connect: str | None = None
    username: str | None = None
    password_env: str | None = None
    password_file: str | None = None


class CertificateRow(Struct, frozen=True, array_like=True):
    """What is presented for a domain: paths, and by which their content is known."""

    domain: str
    certificate: str
    key: str
    fingerprint: str


class Policy(Struct, frozen=True, kw_only=True):
    """Everything that a gateway must know beside routes. Units as in docs/configuration.md.

    hsts  hosts whose clients are told to come by https only
    """

    trusted_proxies: tuple[str, ...] = ()
    rotation: str = "month"
    fsync_ms: int = 1000
    spool_max_bytes: int = 1_073_741_824
    merge_seconds: int = 10
    tag_ttl: int = 60
    cache_bytes: int = 1_073_741_824
    probe_seconds: int = 20
    hold_seconds: int = 30
    return_seconds: int = 600
    upstreams: tuple[UpstreamRow, ...] = ()
    certificates: tuple[CertificateRow, ...] = ()
    hsts: frozenset[str] = frozenset()


class Host(Struct, frozen=True, array_like=True):
    """One host of a snapshot: rows of every kind, in the order in which they were declared."""

    name: str
    policy: HostPolicy
    rows: list[Any]


@cache
def _decoder() -> msgspec.msgpack.Decoder[Any]:
    row: Any = Union[tuple(kind.row for kind in kinds())]  # noqa: UP007  built at run time
    return msgspec.msgpack.Decoder(tuple[str, HostPolicy, list[row]])


_encoder = msgspec.msgpack.Encoder()


def encode_host(host: Host) -> bytes:
    return _encoder.encode(host)


def decode_host(blob: bytes | memoryview) -> Host:
    return Host(*_decoder().decode(blob))


def sites_of(host: Host) -> tuple[Site, ...]:
    """Compiles one host: a site per kind that has rows there, in the kinds' order; https before all of them."""
    sites = tuple(kind.site(rows, host.policy) for kind, rows in by_kind(host.rows))
    return (SecureSite(host.policy), *sites) if host.policy.secure else sites


def by_kind(rows: Iterable[Any]) -> list[tuple[Kind, Sequence[Any]]]:
    kind_of = _kind_of()
    groups: dict[str, list[Any]] = {}
    for row in rows:
        groups.setdefault(kind_of[type(row)].name, []).append(row)
    return [(kind, groups[kind.name]) for kind in kinds() if kind.name in groups]


@cache
def _kind_of() -> dict[type, Kind]:
    return {row: kind for kind in kinds() for row in (get_args(kind.row) or (kind.row,))}


def encode(policy: Policy, hosts: Iterable[tuple[str, bytes]]) -> bytes:
    """A snapshot of host blobs (from encode_host), each host once."""
    entries = sorted((_hash(name), name, blob) for name, blob in hosts)
    if any(one[0] == other[0] for one, other in pairwise(entries)):
        raise SnapshotError("two hosts have the same hash")
    head = _encoder.encode(policy)
    head = struct.pack("<I", len(head)) + head + struct.pack("<Q", len(entries))
    head += bytes(-(len(head) + 12) % 8)
    start = 12 + len(head) + 24 * len(entries)
    hashes, offsets, lengths = [], [], []
    for number, _, blob in entries:
        hashes.append(number)
        offsets.append(start)
        lengths.append(len(blob))
        start += len(blob)
    index = struct.pack(f"<{3 * len(entries)}Q", *hashes, *offsets, *lengths)
    rest = b"".join([head, index, *(blob for _, _, blob in entries)])
    return MAGIC + struct.pack("<I", zlib.crc32(rest)) + rest


def _hash(host: str) -> int:
    return int.from_bytes(blake2b(host.encode(), digest_size=8).digest(), "little")


class Snapshot:
    """Reads a snapshot in place, from bytes or a mapped file."""

    def __init__(self, buffer: Any) -> None:
        view = memoryview(buffer)
        if bytes(view[:8]) != MAGIC:
            raise SnapshotError("not a snapshot of this version of Waypost")
        if zlib.crc32(view[12:]) != struct.unpack_from("<I", view, 8)[0]:
            raise SnapshotError("the snapshot is damaged: its checksum does not match")
        (length,) = struct.unpack_from("<I", view, 12)
        self.policy = msgspec.msgpack.decode(view[16 : 16 + length], type=Policy)
        (count,) = struct.unpack_from("<Q", view, 16 + length)
        start = 24 + length
        start += -start % 8
        self._view = view
        self._hashes = view[start : start + 8 * count].cast("Q")
        self._offsets = view[start + 8 * count : start + 16 * count].cast("Q")
        self._lengths = view[start + 16 * count : start + 24 * count].cast("Q")

    def __len__(self) -> int:
        return len(self._hashes)

    def blob(self, host: str) -> bytes | None:
        """The encoded rows of a host, or None. Equal bytes mean an unchanged host."""
        number = _hash(host)
        position = bisect_left(self._hashes, number)
        if position == len(self._hashes) or self._hashes[position] != number:
            return None
        offset, length = self._offsets[position], self._lengths[position]
        blob = bytes(self._view[offset : offset + length])
        return blob if decode_name(blob) == host else None

    def close(self) -> None:
        """Gives the buffer back, so that a mapping can be closed."""
        for view in (self._hashes, self._offsets, self._lengths, self._view):
            view.release()


_name_decoder = msgspec.msgpack.Decoder(tuple[str, msgspec.Raw, msgspec.Raw])


def decode_name(blob: bytes) -> str:
    """The host that a blob is for, without decoding its rows."""
    return _name_decoder.decode(blob)[0]
