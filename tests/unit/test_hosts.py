"""The snapshot file as a gateway sees it."""

from __future__ import annotations

import pytest

from waypost.artifacts.file import FileRoute
from waypost.artifacts.kind import HostPolicy
from waypost.artifacts.snapshot import Host, Policy, Snapshot, SnapshotError, encode, encode_host
from waypost.gateway import reload
from waypost.gateway.reload import CompiledHosts, SnapshotFile
from waypost.routing.request import Request


def data(**routes):
    """A snapshot: host → the path that it answers."""
    hosts = [
        Host(f"{name}.example", HostPolicy("http://x"), [FileRoute(path, None, name)]) for name, path in routes.items()
    ]
    return encode(Policy(), [(host.name, encode_host(host)) for host in hosts])


def test_a_host_is_compiled_when_it_is_first_asked_and_then_kept(monkeypatch):
    compiled = []
    monkeypatch.setattr(reload, "sites_of", lambda host, real=reload.sites_of: compiled.append(host.name) or real(host))
    hosts = CompiledHosts(Snapshot(data(one="/a", two="/b")))
    assert compiled == []
    sites = hosts("one.example")
    assert hosts("one.example") is sites
    assert compiled == ["one.example"]
    assert len(hosts) == 2


def test_unchanged_hosts_keep_their_compiled_sites_across_snapshots():
    hosts = CompiledHosts(Snapshot(data(one="/a", two="/b", gone="/c")))
    one, two = hosts("one.example"), hosts("two.example")
    assert hosts("gone.example") is not None
    hosts.swap(Snapshot(data(one="/a", two="/changed", new="/n")))
    assert hosts("one.example") is one
    changed = hosts("two.example")
    assert changed is not two
    assert changed[0].decide(Request("GET", "two.example", "/changed")).status == 200
    assert changed[0].decide(Request("GET", "two.example", "/b")) is None
    assert hosts("gone.example") is None
    assert hosts("new.example") is not None


def test_sites_survive_several_swaps_without_being_asked():
    hosts = CompiledHosts(Snapshot(data(one="/a")))
    one = hosts("one.example")
    for _ in range(3):
        hosts.swap(Snapshot(data(one="/a")))
    assert hosts("one.example") is one


def test_what_is_remembered_of_snapshots_before_stays_bounded(monkeypatch):
    """Hosts that went long ago must not be kept for ever."""
    snapshot = Snapshot(data(host0="/x"))
    monkeypatch.setattr(reload, "MAX_COMPILED", 3 * len(snapshot.blob("host0.example")) + 8)
    hosts = CompiledHosts(snapshot)
    for number in range(1, 20):
        hosts(f"host{number - 1}.example")
        hosts.swap(Snapshot(data(**{f"host{number}": "/x"})))
    assert len(hosts._before) <= 3


def test_a_host_that_comes_back_is_known_again():
    hosts = CompiledHosts(Snapshot(data(one="/a")))
    assert hosts("two.example") is None
    hosts.swap(Snapshot(data(two="/b")))
    assert hosts("two.example") is not None
    assert hosts("one.example") is None


def test_a_flood_of_unknown_names_is_bounded(monkeypatch):
    monkeypatch.setattr(reload, "MAX_UNKNOWN", 10)
    hosts = CompiledHosts(Snapshot(data(one="/a")))
    for number in range(100):
        assert hosts(f"unknown{number}.example") is None
        assert len(hosts._unknown) <= 10
    assert hosts("one.example") is not None


def test_compiled_hosts_are_bounded(monkeypatch):
    snapshot = Snapshot(data(**{f"h{number}": "/x" for number in range(10)}))
    monkeypatch.setattr(reload, "MAX_COMPILED", 3 * len(snapshot.blob("h0.example")))
    hosts = CompiledHosts(snapshot)
    for _ in range(2):
        for number in range(10):
            assert hosts(f"h{number}.example") is not None
            assert len(hosts._compiled) <= 3


def test_a_host_that_is_larger_than_the_bound_is_kept_all_the_same(monkeypatch):
    monkeypatch.setattr(reload, "MAX_COMPILED", 1)
    hosts = CompiledHosts(Snapshot(data(one="/a", two="/b")))
    assert hosts("one.example") is hosts("one.example")
    hosts("two.example")
    assert list(hosts._compiled) == ["two.example"]


def replace(path, content):
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.replace(path)


def test_a_file_is_handed_out_once_for_each_time_it_is_replaced(tmp_path):
    path = tmp_path / "snapshot"
    path.write_bytes(data(one="/a"))
    file = SnapshotFile(path)
    first = file.changed()
    assert first.blob("one.example") is not None
    assert file.changed() is None
    replace(path, data(two="/b"))
    second = file.changed()
    assert second.blob("two.example") is not None
    assert first.blob("one.example") is not None  # who still serves from the one before may go on
    assert file.changed() is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: b"",
        lambda content: b"x" * len(content),
        lambda content: content[:-1] + b"\xff",
    ],
)
def test_a_damaged_snapshot_is_refused_once_and_the_old_one_kept(tmp_path, damage):
    path = tmp_path / "snapshot"
    path.write_bytes(data(one="/a"))
    file = SnapshotFile(path)
    hosts = CompiledHosts(file.changed())
    replace(path, damage(data(two="/b")))
    with pytest.raises(SnapshotError):
        file.changed()
    assert file.changed() is None  # told once
    assert hosts("one.example") is not None
    replace(path, data(two="/b"))
    hosts.swap(file.changed())
    assert hosts("two.example") is not None


def test_no_file_is_an_error_of_the_disk(tmp_path):
    with pytest.raises(FileNotFoundError):
        SnapshotFile(tmp_path / "none").changed()
