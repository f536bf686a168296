from __future__ import annotations

import pytest

from waypost.upstream.health import FAILURES, FIRST_PAUSE, LONGEST_PAUSE, LONGEST_RETRY_AFTER, Health


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def order(health):
    return health.order(["a", "b", "c"], str)


def test_everybody_is_up_until_they_fail_often_enough(clock):
    health = Health(clock)
    assert order(health) == ["a", "b", "c"]
    for _ in range(FAILURES - 1):
        health.failed("a", "down")
    assert order(health) == ["a", "b", "c"]
    assert health.failed("a", "down") == FIRST_PAUSE
    assert health.failed("a", "down") == 0  # said once
    assert order(health) == ["b", "c", "a"]
    assert list(health.down()) == [("a", "down", FIRST_PAUSE)]


def test_one_success_closes_and_forgets(clock):
    health = Health(clock)
    for _ in range(5):
        health.failed("a", "down")
    assert health.succeeded("a")
    assert not health.succeeded("a")
    assert health.is_up("a")
    health.failed("a", "down")
    assert health.is_up("a")


def test_pauses_double_up_to_a_bound_while_trials_fail(clock):
    health = Health(clock)
    pauses = []
    health.failed("a", "down")
    for _ in range(10):
        health.failed("a", "down")
        pauses.append(next(iter(health.down()))[2])
        clock.now += pauses[-1]
        assert health.is_up("a")  # on trial
    assert pauses == sorted(pauses)
    assert pauses[:3] == [FIRST_PAUSE, FIRST_PAUSE * 2, FIRST_PAUSE * 4]
    assert pauses[-1] == LONGEST_PAUSE


def test_failures_while_it_is_left_alone_do_not_prolong_that(clock):
    health = Health(clock)
    for _ in range(20):
        health.failed("a", "down")  # twenty requests that were under way
    assert next(iter(health.down()))[2] == FIRST_PAUSE


def test_retry_after_is_believed_within_a_bound(clock):
    health = Health(clock)
    health.failed("a", "429", retry_after=120)
    assert next(iter(health.down()))[2] == 120
    health.failed("b", "429", retry_after=10**9)
    clock.now += LONGEST_RETRY_AFTER
    assert health.is_up("b")
