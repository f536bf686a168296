"""What workers tell of upstreams, in files."""

from __future__ import annotations

import pytest

from waypost.events.standings import Standing, forget, forget_all, said, tell, told

UP, DOWN = Standing("ghcr.io"), Standing("quay.io", 100.0, "no connection.")


def test_what_is_told_is_read(tmp_path):
    folder = tmp_path / "health"
    assert told(folder) == {}
    assert tell(folder, 10, [UP])
    assert tell(folder, 2, [UP, DOWN])
    assert tell(folder, 2, [DOWN])
    assert list(told(folder).items()) == [(2, [DOWN]), (10, [UP])]
    forget(folder, 2)
    forget(folder, 3)
    assert told(folder) == {10: [UP]}
    forget_all(folder)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"[{", b"{}", b'[{"host": 1}]', b"\xff"])
def test_what_cannot_be_read_is_nothing_said(tmp_path, content):
    tell(tmp_path, 0, [UP])
    (tmp_path / "worker1.json").write_bytes(content)
    (tmp_path / "workerx.json").write_bytes(b"[]")
    assert told(tmp_path) == {0: [UP]}


def test_what_cannot_be_written_leaves_nothing_that_is_out_of_date(tmp_path):
    tell(tmp_path, 0, [UP])
    (tmp_path / "worker0.new").mkdir()
    assert not tell(tmp_path, 0, [DOWN])
    assert told(tmp_path) == {}
    (tmp_path / "worker0.new").rmdir()
    assert tell(tmp_path, 0, [DOWN])
    assert told(tmp_path) == {0: [DOWN]}


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "health").write_bytes(b"")
    assert not tell(tmp_path / "health", 0, [UP])


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        ({}, "quay.io has not been asked for anything yet"),
        ({0: [UP]}, "quay.io has not been asked for anything yet"),
        ({0: [Standing("quay.io")], 1: [UP]}, "quay.io is up"),
        ({0: [DOWN], 1: [UP]}, "quay.io is down for 12 s: no connection."),
        ({0: [Standing("quay.io")], 1: [DOWN], 2: []},
         "quay.io is down for 12 s in 1 of 2 workers that asked it: no connection."),
        ({0: [Standing("quay.io", 110.0, "answers 503.")], 1: [DOWN]}, "quay.io is down for 12 s: no connection."),
        ({0: [Standing("quay.io", 200.0, "the clock was set back.")]},
         "quay.io is down for 0 s: the clock was set back."),
    ],
)  # fmt: skip
def test_in_words(views, expected):
    assert said("quay.io", views, 112.0) == expected
