from __future__ import annotations

import pytest

from waypost.upstream.health import (
    FAILURES,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    LONGEST_RETRY_AFTER,
    MOST_KNOWN,
    SPREAD,
    UNWANTED,
    Health,
    Standing,
    retry_after,
)

PROBE = "https://a/v2/"


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def health(clock):
    return Health(clock, lambda: 0.0)


def order(health):
    return health.order(["a", "b", "c"], str)


def opened(health, **more):
    """Fails `a` until its breaker opens; for how many seconds."""
    return [health.failed("a", "down", **more) for _ in range(FAILURES)][-1]


def test_everybody_is_up_until_they_fail_often_enough(health, clock):
    assert order(health) == ["a", "b", "c"]
    for _ in range(FAILURES - 1):
        health.failed("a", "down")
    assert order(health) == ["a", "b", "c"]
    assert health.failed("a", "down") == FIRST_PAUSE
    assert health.failed("a", "down") == 0  # said once
    assert order(health) == ["b", "c", "a"]
    assert health.down() == [Standing("a", clock.now, "down")]


def test_one_success_closes_and_forgets(health):
    for _ in range(5):
        health.failed("a", "down")
    assert health.succeeded("a")
    assert not health.succeeded("a")
    assert health.is_up("a")
    health.failed("a", "down")
    assert health.is_up("a")


def test_pauses_double_up_to_a_bound_while_trials_fail(health, clock):
    pauses = []
    health.failed("a", "down")
    for _ in range(10):
        pauses.append(health.failed("a", "down"))
        clock.now += pauses[-1]
        assert health.is_up("a")  # on trial
    assert pauses == sorted(pauses)
    assert pauses[:3] == [FIRST_PAUSE, FIRST_PAUSE * 2, FIRST_PAUSE * 4]
    assert pauses[-1] == LONGEST_PAUSE


def test_failures_while_it_is_left_alone_do_not_prolong_that(health, clock):
    for _ in range(20):
        health.failed("a", "down")  # twenty requests that were under way
    clock.now += FIRST_PAUSE
    assert health.is_up("a")


def test_retry_after_is_believed_within_a_bound(health, clock):
    assert health.failed("a", "429", retry_after=120) == 120
    assert health.failed("b", "429", retry_after=10**9) == LONGEST_RETRY_AFTER
    clock.now += LONGEST_RETRY_AFTER
    assert health.is_up("b")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("120", 120.0), ("0", 0.0), ("9" * 400, 999999999.0), (None, None), ("", None), ("-1", None), ("1.5", None),
     ("²", None), ("Fri, 31 Dec 1999 23:59:59 GMT", None)],
)  # fmt: skip
def test_retry_after_in_seconds(value, seconds):
    assert retry_after(value) == seconds


# Where a probe can tell whether it is back.


def test_a_registry_stays_down_until_a_probe_or_a_request_goes_well(health, clock):
    opened(health, probe=PROBE)
    assert health.to_probe() == []
    clock.now += FIRST_PAUSE
    assert health.to_probe() == [("a", PROBE)]
    assert order(health) == ["b", "c", "a"]  # no user pays for the trial
    assert health.came_back("a")
    assert not health.came_back("a")
    assert order(health) == ["a", "b", "c"]
    assert health.to_probe() == []


def test_a_request_that_goes_well_needs_no_probe(health, clock):
    opened(health, probe=PROBE)
    clock.now += FIRST_PAUSE
    assert health.succeeded("a")
    assert health.to_probe() == []
    health.stays_down("a", "a probe that was under way")
    assert not health.came_back("a")
    assert health.is_up("a")


def test_pauses_double_while_probes_fail(health, clock):
    opened(health, probe=PROBE)
    since = clock.now
    pause = FIRST_PAUSE
    for _ in range(10):
        clock.now += pause
        assert health.to_probe() == [("a", PROBE)]
        health.stays_down("a", "still")
        assert health.to_probe() == []
        pause = min(pause * 2, LONGEST_PAUSE)
        clock.now += pause - 0.1
        assert health.to_probe() == []
        clock.now -= pause - 0.1
        health.order(["a"], str)
    assert health.down() == [Standing("a", since, "still")]


def test_a_probe_is_told_when_to_come_back(health, clock):
    opened(health, probe=PROBE)
    clock.now += FIRST_PAUSE
    health.stays_down("a", "429", retry_after=1000)
    clock.now += 999
    assert health.to_probe() == []
    clock.now += 1
    assert health.to_probe() == [("a", PROBE)]


def test_who_answers_probes_alone_is_soon_down_again_and_for_longer(health, clock):
    opened(health, probe=PROBE)
    clock.now += FIRST_PAUSE
    health.came_back("a")
    assert health.failed("a", "down", probe=PROBE) == FIRST_PAUSE * 2
    clock.now += FIRST_PAUSE * 2
    health.came_back("a")
    health.succeeded("a")
    assert opened(health, probe=PROBE) == FIRST_PAUSE


def test_what_nobody_wants_any_more_is_not_probed_for_ever(health, clock):
    opened(health, probe=PROBE)
    for _ in range(10):
        clock.now += UNWANTED
        order(health)
        assert health.to_probe() == [("a", PROBE)]
    clock.now += UNWANTED + 1
    assert health.to_probe() == []
    assert health.down() == []


def test_pauses_are_spread(clock):
    chance = iter([0.0, 0.5, 1.0])
    health = Health(clock, lambda: next(chance))
    pauses = []
    for host in "abc":
        health.failed(host, "down")
        pauses.append(health.failed(host, "down"))
    assert pauses == pytest.approx([FIRST_PAUSE * (1 + part * SPREAD) for part in (0.0, 0.5, 1.0)])


# What is shown.


def test_standings_tell_of_those_that_answered_or_are_down(health, clock):
    assert health.standings() == []
    health.failed("b", "once")
    assert health.standings() == []  # nobody knows
    health.succeeded("c")
    health.succeeded("a")
    assert health.standings() == [Standing("a"), Standing("c")]
    opened(health)
    assert health.standings() == [Standing("a", clock.now, "down"), Standing("c")]
    clock.now += FIRST_PAUSE
    assert health.standings() == [Standing("a"), Standing("c")]


def test_only_so_many_are_remembered(health):
    for number in range(MOST_KNOWN + 5):
        health.succeeded(f"h{number:05}")
    assert len(health.standings()) == MOST_KNOWN
    assert health.standings()[0].host == "h00005"
