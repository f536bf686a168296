from __future__ import annotations

import hashlib
import os
import subprocess

import pytest

from waypost.upstream.folder import Folder
from waypost.upstream.manifests import MOST_LABELS, Label, Manifest, ManifestStore, Tag

REPOSITORY = "ghcr.io/acme/skates"


def digest(body):
    return "sha256:" + hashlib.sha256(body).hexdigest()


def manifest(body=b'{"schemaVersion": 2}', repository=REPOSITORY):
    return Manifest(repository, digest(body), "application/vnd.oci.image.manifest.v1+json", body)


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_what_is_kept_is_found_again_by_another_worker(tmp_path):
    one = manifest()
    assert ManifestStore(Folder(tmp_path, 10**6)).keep(one)
    other = ManifestStore(Folder(tmp_path, 10**6))
    assert other.held(REPOSITORY, one.digest) is None
    assert other.manifest(REPOSITORY, one.digest) == one
    assert other.held(REPOSITORY, one.digest) == one


def test_a_repository_has_its_own(tmp_path):
    store = ManifestStore(Folder(tmp_path, 10**6))
    store.keep(manifest())
    assert store.manifest("ghcr.io/acme/other", manifest().digest) is None


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[:-1], lambda data: data[:40], lambda data: b"", lambda data: data.replace(b"2}", b"3}")],
)
def test_damage_is_a_miss(tmp_path, damage):
    one = manifest()
    ManifestStore(Folder(tmp_path, 10**6)).keep(one)
    (file,) = files(tmp_path)
    file.write_bytes(damage(file.read_bytes()))
    assert ManifestStore(Folder(tmp_path, 10**6)).manifest(REPOSITORY, one.digest) is None


def test_a_tag_means_what_a_registry_last_said(tmp_path):
    store = ManifestStore(Folder(tmp_path, 10**6))
    first = Tag(REPOSITORY, "1.0", "a, b", "sha256:1", 100.0)
    assert store.tag(REPOSITORY, "1.0", "a, b") is None
    store.point(first)
    assert store.tag(REPOSITORY, "1.0", "a, b") == first
    assert store.tag(REPOSITORY, "1.0", "a") is None
    other = ManifestStore(Folder(tmp_path, 10**6))
    second = Tag(REPOSITORY, "1.0", "a, b", "sha256:2", 200.0)
    other.point(second)
    assert store.held_tag(REPOSITORY, "1.0", "a, b") == first
    assert store.tag(REPOSITORY, "1.0", "a, b") == second
    assert store.held_tag(REPOSITORY, "1.0", "a, b") == second


def test_a_sweep_removes_what_was_not_used_for_longest(tmp_path):
    folder = Folder(tmp_path, 10**6)
    store = ManifestStore(folder)
    kept = [manifest(bytes([65 + number]) * 1000) for number in range(10)]
    for number, one in enumerate(kept):
        store.keep(one)
        (newest,) = {path for path in files(tmp_path) if path.stat().st_mtime > 10**9}
        os.utime(newest, (number, number))
    assert folder.sweep() == 0
    total = sum(path.stat().st_size for path in files(tmp_path))
    folder.max_bytes = total - 2500
    assert 2500 <= folder.sweep() <= 4000
    fresh = ManifestStore(Folder(tmp_path, 10**6))
    assert [fresh.manifest(REPOSITORY, one.digest) is not None for one in kept] == [False] * 3 + [True] * 7


def test_memory_is_bounded(tmp_path):
    store = ManifestStore(Folder(tmp_path, 10**6), memory_bytes=2500)
    for number in range(10):
        store.keep(manifest(bytes([65 + number]) * 1000))
    assert store._held <= 2500
    assert len(store._manifests) == 2


def test_a_full_disk_costs_hits_and_nothing_else(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "waypost-test", str(small)], check=True)
    try:
        folder = Folder(small, 10**9)
        store = ManifestStore(folder, memory_bytes=0)
        answers = [store.keep(manifest(os.urandom(8000))) for _ in range(20)]
        assert answers[0] is True
        assert answers[-1] is False
        assert folder.failures >= 1
        whole = [path for path in files(small) if path.suffix != ".manifest"]
        assert whole == []  # nothing written by halves is left behind
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_label_is_found_by_another_worker_and_in_its_own_repository(tmp_path):
    store, other = (ManifestStore(Folder(tmp_path, 10**6)) for _ in range(2))
    assert store.label(REPOSITORY, "sha256:1") is None
    store.stick([Label(REPOSITORY, "sha256:1", "skates"), Label(REPOSITORY, "sha256:2", "")])
    for one in (store, other, other):
        assert one.label(REPOSITORY, "sha256:1") == "skates"
        assert one.label(REPOSITORY, "sha256:2") == ""
        assert one.label("ghcr.io/acme/other", "sha256:1") is None


def test_a_label_is_written_once(tmp_path):
    store = ManifestStore(Folder(tmp_path, 10**6))
    store.stick([Label(REPOSITORY, "sha256:1", "skates")])
    (file,) = files(tmp_path)
    file.write_bytes(b"torn")
    store.stick([Label(REPOSITORY, "sha256:1", "skates")])
    assert ManifestStore(Folder(tmp_path, 10**6)).label(REPOSITORY, "sha256:1") is None
    store.stick([Label(REPOSITORY, "sha256:1", "boots")])
    assert ManifestStore(Folder(tmp_path, 10**6)).label(REPOSITORY, "sha256:1") == "boots"


def test_labels_in_memory_are_bounded(tmp_path):
    store = ManifestStore(Folder(tmp_path / "missing" / "file", 10**6))
    (tmp_path / "missing").write_text("no folder")
    store.stick(Label(REPOSITORY, f"sha256:{number}", "x") for number in range(MOST_LABELS + 10))
    assert len(store._labels) == MOST_LABELS
