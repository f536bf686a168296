"""Upstreams that clients are only sent to: when they count as down, and from where indexes come meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from waypost.upstream.health import FAILURES, LONGEST_RETRY_AFTER, Standing
from waypost.upstream.outage import Outage, read, write
from waypost.upstream.watch import AGAIN, FORGOTTEN, LATEST, MOST_WATCHED, SOONEST, Pace, Watch, moved

PACE = Pace(every=20.0, hold=30.0, back=600.0)
A, B = "a.example", "b.example"
ASKED = {A: "https://a.example/debian/", B: "https://b.example/"}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(clock: Clock) -> Watch:
    one = Watch(clock, PACE, lambda: 0.0)
    one.want(ASKED)
    return one


def fail(watch: Watch, host: str = A) -> bool:
    return [watch.failed(host, "answers 503.") for _ in range(FAILURES)][-1]


def test_who_is_wanted_is_asked_at_once_and_then_now_and_then(watch: Watch, clock: Clock) -> None:
    assert watch.due(8) == [(A, ASKED[A]), (B, ASKED[B])]
    assert watch.due(8) == []
    clock.now += SOONEST * PACE.every - 0.1
    assert watch.due(8) == []
    clock.now += 0.1
    assert watch.due(1) == [(A, ASKED[A])]
    assert watch.due(8) == [(B, ASKED[B])]


def test_questions_are_spread(clock: Clock) -> None:
    watch = Watch(clock, PACE, lambda: 1.0)
    watch.want(ASKED)
    watch.due(8)
    clock.now += LATEST * PACE.every - 0.1
    assert watch.due(8) == []
    clock.now += 0.1
    assert len(watch.due(8)) == 2


def test_who_is_not_wanted_any_more_is_not_asked(watch: Watch, clock: Clock) -> None:
    watch.want({B: "https://b.example/other/"})
    assert watch.due(8) == [(B, "https://b.example/other/")]
    assert not watch.failed(A, "late")
    assert not watch.answered(A)
    watch.cannot_tell(A, 5)
    assert watch.standings() == []


def test_only_so_many_are_watched(clock: Clock) -> None:
    watch = Watch(clock, PACE)
    watch.want({f"{number}.example": "https://x/" for number in range(MOST_WATCHED + 9)})
    assert len(watch.due(MOST_WATCHED * 2)) == MOST_WATCHED


def test_one_failure_is_looked_into_soon(watch: Watch, clock: Clock) -> None:
    watch.due(8)
    assert not watch.failed(A, "no connection.")
    assert watch.outages() == []
    clock.now += PACE.every * AGAIN
    assert watch.due(8) == [(A, ASKED[A])]
    assert watch.failed(A, "no connection.")
    assert not watch.failed(A, "no connection.")  # said once
    # It is down since it first failed.
    (outage,) = watch.outages()
    assert (outage.host, outage.why, outage.left) == (A, "no connection.", False)
    assert outage.down_since == clock.now - PACE.every * AGAIN


def test_a_failure_now_and_then_is_none(watch: Watch, clock: Clock) -> None:
    for _ in range(10):
        assert not watch.failed(A, "answers 502.")
        assert not watch.answered(A)
        clock.now += 100
    assert watch.decide() == ([], [])
    assert watch.standings() == [Standing(A)]


def test_indexes_stay_for_a_while_and_come_back_after_a_longer_one(watch: Watch, clock: Clock) -> None:
    assert fail(watch)
    clock.now += PACE.hold - 1
    assert watch.decide() == ([], [])
    assert watch.outages()[0].rank == 0.0
    clock.now += 1
    assert watch.decide() == ([A], [])
    assert watch.decide() == ([], [])
    assert watch.outages()[0].rank == float("inf")
    assert watch.standings() == [Standing(A, 1000.0, "answers 503.")]
    clock.now += 5
    assert watch.answered(A)
    assert not watch.answered(A)
    assert watch.outages() == [Outage(A, ASKED[A], "answers 503.", None, clock.now, True)]
    assert watch.standings() == [Standing(A)]
    clock.now += PACE.back - 1
    assert watch.decide() == ([], [])
    clock.now += 1
    assert watch.decide() == ([], [A])
    assert watch.outages() == []


def test_who_was_up_shortly_stays_left(watch: Watch, clock: Clock) -> None:
    fail(watch)
    clock.now += PACE.hold
    watch.decide()
    watch.answered(A)
    clock.now += PACE.back - 1
    fail(watch)
    clock.now += 5
    watch.answered(A)
    clock.now += PACE.back - 1
    assert watch.decide() == ([], [])
    clock.now += 1
    assert watch.decide() == ([], [A])


def test_if_all_were_left_the_one_that_is_back_longest_goes_first(watch: Watch, clock: Clock) -> None:
    for host in (A, B):
        fail(watch, host)
    clock.now += PACE.hold
    assert watch.decide() == ([A, B], [])
    assert [one.rank for one in watch.outages()] == [float("inf")] * 2
    watch.answered(B)
    clock.now += 10
    watch.answered(A)
    ranks = {one.host: one.rank for one in watch.outages()}
    assert ranks[B] < ranks[A] < float("inf")


def test_who_was_left_is_asked_until_it_is_back_or_forgotten(watch: Watch, clock: Clock) -> None:
    fail(watch)
    clock.now += PACE.hold
    watch.decide()
    watch.want({})
    clock.now += PACE.every
    assert watch.due(8) == [(A, ASKED[A])]
    clock.now += FORGOTTEN
    watch.want({})
    assert watch.outages() == []


def test_who_turns_us_away_is_left_in_peace_and_counts_as_nothing(watch: Watch, clock: Clock) -> None:
    watch.due(8)
    watch.cannot_tell(A, 10.0**9)
    watch.cannot_tell(B, 1.0)
    clock.now += LONGEST_RETRY_AFTER - 1
    assert watch.due(8) == [(B, ASKED[B])]
    clock.now += 1
    assert watch.due(8) == [(A, ASKED[A])]
    assert watch.standings() == []


def test_a_restart_changes_nothing(watch: Watch, clock: Clock, tmp_path: Any) -> None:
    path = tmp_path / "outages.json"
    assert read(path) == []
    fail(watch, B)
    clock.now += PACE.hold
    watch.decide()
    watch.answered(B)
    fail(watch, A)
    clock.now += PACE.hold
    watch.decide()
    assert write(path, moved(watch.outages(), 5000.0))
    found = read(path)
    assert found is not None
    assert [(one.host, one.down_since, one.up_since, one.left) for one in found] == [
        (A, 6030.0, None, True),
        (B, None, 6030.0, True),
    ]

    clock.now += 50  # of another life
    again = Watch(clock, PACE, lambda: 0.0)
    again.restore(moved(found, -5000.0))
    again.want({})
    assert [one.left for one in again.outages()] == [True, True]
    assert again.due(8) == [(A, ASKED[A]), (B, ASKED[B])]
    clock.now += PACE.back - 1
    assert again.decide() == ([], [])  # what it did while nobody looked says nothing
    clock.now += 1
    assert again.decide() == ([], [B])


def test_what_cannot_be_read_or_written_is_no_news(tmp_path: Any) -> None:
    path = tmp_path / "outages.json"
    for text in ("", "[", '[{"host": 1}]', "{}"):
        path.write_text(text)
        assert read(path) is None
    assert not write(tmp_path / "missing" / "outages.json", [])
