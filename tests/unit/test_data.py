"""The data directory: one owner, and what it leaves for commands."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from waypost.data import DataDirectory, DataInUse, Running


def directory(root: Path) -> DataDirectory:
    one = DataDirectory(root)
    one.create()
    return one


def test_there_is_one_owner(tmp_path: Path) -> None:
    owner = directory(tmp_path)
    owner.own()
    with pytest.raises(DataInUse, match="belongs to a Waypost that is running"):
        directory(tmp_path).own()


def test_whoever_only_looks_keeps_no_owner_out(tmp_path: Path) -> None:
    """`waypost stats` and the like look whether somebody owns it, at any moment, one of a start included."""
    directory(tmp_path)
    stopping = threading.Event()

    def look() -> None:
        while not stopping.is_set():
            DataDirectory(tmp_path).running()

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for looker in lookers:
        looker.start()
    try:
        owner = directory(tmp_path)
        owner.own()
    finally:
        stopping.set()
        for looker in lookers:
            looker.join()


def test_an_announcement_counts_while_there_is_an_owner(tmp_path: Path) -> None:
    running = Running(1, "http://127.0.0.1:8081", "token")
    looker = directory(tmp_path)
    looker.announce(running)
    assert looker.running() is None
    owner = directory(tmp_path)
    owner.own()
    assert looker.running() == running
    assert (tmp_path / "running.json").stat().st_mode & 0o077 == 0
