from __future__ import annotations

import os
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from waypost.events.identity import GRACE_US, RETRY_US, Identity

MINUTE = 60 * 1_000_000
UA = "curl/8.1"


def us(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


MIDDLE, END = us("2026-11-21T12:00:00"), us("2026-12-01T00:00:00")


def keys(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*"))


def test_a_source_is_address_and_user_agent_an_endpoint_the_address(tmp_path: Path) -> None:
    identity = Identity(tmp_path, "month")
    who = identity.of("192.0.2.1", UA, MIDDLE)
    assert (len(who.origin_id), len(who.endpoint_id)) == (16, 16)
    assert identity.of("192.0.2.1", UA, MIDDLE + 1) == who
    other = identity.of("192.0.2.1", "pip/26.3", MIDDLE)
    assert other.endpoint_id == who.endpoint_id
    assert other.origin_id != who.origin_id
    assert identity.of("192.0.2.2", UA, MIDDLE).endpoint_id != who.endpoint_id
    assert who.origin_was is None
    assert who.endpoint_was is None
    assert identity.of("192.0.2.1", None, MIDDLE).origin_id not in (who.origin_id, who.endpoint_id)


@pytest.mark.parametrize(
    ("rotation", "name"), [("month", "2026-11.key"), ("day", "2026-11-21.key"), ("never", "never.key")]
)
def test_the_key_is_the_periods_and_private(rotation: str, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "identity"
    Identity(folder, rotation).of("192.0.2.1", UA, MIDDLE)
    assert keys(folder) == [name]
    assert (folder / name).stat().st_mode & 0o777 == 0o600
    assert len((folder / name).read_bytes()) == 32
    assert folder.stat().st_mode & 0o077 == 0


def test_processes_agree_whichever_comes_first(tmp_path: Path) -> None:
    found = []
    barrier = threading.Barrier(8)

    def process() -> None:
        identity = Identity(tmp_path, "month")
        barrier.wait()
        found.append(identity.of("192.0.2.1", UA, MIDDLE))

    threads = [threading.Thread(target=process) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert keys(tmp_path) == ["2026-11.key"]


def test_after_the_period_the_old_identity_is_told_for_a_quarter_of_an_hour(tmp_path: Path) -> None:
    identity = Identity(tmp_path, "month")
    before = identity.of("192.0.2.1", UA, END - 1)
    during = identity.of("192.0.2.1", UA, END)
    assert (during.origin_was, during.endpoint_was) == (before.origin_id, before.endpoint_id)
    assert during.origin_id != before.origin_id
    assert keys(tmp_path) == ["2026-11.key", "2026-12.key"]
    assert Identity(tmp_path, "month").of("192.0.2.1", UA, END + GRACE_US - 1) == during, "a worker that restarts"
    after = identity.of("192.0.2.1", UA, END + GRACE_US)
    assert (after.origin_id, after.origin_was) == (during.origin_id, None)
    assert keys(tmp_path) == ["2026-12.key"]
    assert identity._key_was is None


def test_a_key_is_destroyed_even_if_nobody_ran_when_its_time_was_over(tmp_path: Path) -> None:
    Identity(tmp_path, "month").of("192.0.2.1", UA, MIDDLE)
    who = Identity(tmp_path, "month").of("192.0.2.1", UA, us("2027-02-14T00:00:00"))
    assert who.origin_was is None
    assert keys(tmp_path) == ["2027-02.key"]


def test_a_month_later_the_key_before_is_not_the_one_of_two_months_ago(tmp_path: Path) -> None:
    identity = Identity(tmp_path, "month")
    identity.of("192.0.2.1", UA, MIDDLE)
    assert identity.of("192.0.2.1", UA, us("2027-01-01T00:05:00")).origin_was is None


def test_another_rotation_leaves_no_old_key_behind(tmp_path: Path) -> None:
    Identity(tmp_path, "month").of("192.0.2.1", UA, MIDDLE)
    Identity(tmp_path, "day").of("192.0.2.1", UA, MIDDLE)
    assert keys(tmp_path) == ["2026-11-21.key"]


def test_a_process_whose_clock_is_behind_does_not_destroy_the_new_key(tmp_path: Path) -> None:
    early, late = Identity(tmp_path, "month"), Identity(tmp_path, "month")
    new = late.of("192.0.2.1", UA, END)
    early.of("192.0.2.1", UA, END - 1)
    assert early.of("192.0.2.1", UA, END).origin_id == new.origin_id


def test_a_clock_that_is_set_back_does_not_bring_back_a_key(tmp_path: Path) -> None:
    identity = Identity(tmp_path, "month")
    new = identity.of("192.0.2.1", UA, END)
    assert identity.of("192.0.2.1", UA, MIDDLE) == new


def test_addresses_do_not_outlive_their_key_in_the_cache(tmp_path: Path) -> None:
    identity = Identity(tmp_path, "month")
    identity.of("192.0.2.1", UA, MIDDLE)
    identity.of("192.0.2.2", UA, END + GRACE_US)
    assert identity._who.cache_info().currsize == 1


def test_without_a_disk_it_serves_on_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **named: object) -> None:
        raise OSError(28, "full")

    identity = Identity(tmp_path, "month")
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", full)
        who = identity.of("192.0.2.1", UA, MIDDLE)
        assert identity.volatile
        assert keys(tmp_path) == []
        assert identity.of("192.0.2.1", UA, MIDDLE + MINUTE // 2) == who
    again = identity.of("192.0.2.1", UA, MIDDLE + RETRY_US)
    assert not identity.volatile
    assert again == who, "the key in memory becomes the key on disk"
    assert Identity(tmp_path, "month").of("192.0.2.1", UA, MIDDLE) == who


def test_a_key_that_was_cut_short_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "2026-11.key").write_bytes(b"short")
    identity = Identity(tmp_path, "month")
    identity.of("192.0.2.1", UA, MIDDLE)
    assert identity.volatile


def test_any_text_is_an_address_or_a_user_agent(tmp_path: Path) -> None:
    identity = Identity(tmp_path, "never")
    assert identity.of("2001:db8::1%eth0", "\udcff\xff\0", MIDDLE) != identity.of("2001:db8::1", "", MIDDLE)
