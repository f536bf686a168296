from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waypost.artifacts.kind import HostPolicy
from waypost.artifacts.pixel import PixelRow
from waypost.artifacts.python import PythonFileRow
from waypost.artifacts.snapshot import (
    Host,
    Policy,
    Snapshot,
    SnapshotError,
    UpstreamRow,
    decode_host,
    encode,
    encode_host,
)
from waypost.artifacts.telemetry import TelemetryRow

POLICY = Policy(
    trusted_proxies=("10.0.0.0/8",), merge_seconds=3, upstreams=(UpstreamRow("ghcr.io", "http://127.0.0.1:5001"),)
)


def host(name, *rows):
    return Host(name, HostPolicy(f"https://{name}"), list(rows))


def snapshot(*hosts):
    return Snapshot(encode(POLICY, [(one.name, encode_host(one)) for one in hosts]))


@settings(max_examples=50, deadline=None)
@given(st.sets(st.from_regex(r"\A[a-z]{1,8}\.example\Z"), max_size=30))
def test_every_host_is_found_and_no_other(names):
    hosts = {name: host(name, TelemetryRow(f"/{name}", name)) for name in names}
    read = snapshot(*hosts.values())
    assert len(read) == len(names)
    for name, one in hosts.items():
        assert decode_host(read.blob(name)) == one
    assert read.blob("other.test") is None


def test_rows_of_several_kinds_keep_their_order():
    one = host(
        "a.example",
        PixelRow(),
        TelemetryRow("/x", "p", None, ["t"]),
        PythonFileRow("p", "f", "1", "u", "p"),
        PixelRow(),
    )
    assert decode_host(snapshot(one).blob("a.example")) == one


def test_the_policy_comes_along():
    assert snapshot().policy == POLICY


@pytest.mark.parametrize("position", [0, 8, 20, -1])
def test_a_damaged_snapshot_is_refused(position):
    data = bytearray(encode(POLICY, [("a.example", encode_host(host("a.example", PixelRow())))]))
    data[position] ^= 1
    with pytest.raises(SnapshotError):
        Snapshot(bytes(data))


def test_a_torn_snapshot_is_refused():
    data = encode(POLICY, [("a.example", encode_host(host("a.example", PixelRow())))])
    for length in range(0, len(data), 7):
        with pytest.raises(SnapshotError):
            Snapshot(data[:length])
