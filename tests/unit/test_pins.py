"""Which of several upstreams clients are sent to."""

from __future__ import annotations

from typing import Any

import pytest

from waypost.gateway.choice import choose, pinned, roots
from waypost.gateway.pins import ASKED_SECONDS, Pins
from waypost.gateway.steering import tell, told
from waypost.routing.decision import Fetch, Redirect, Refuse
from waypost.upstream.health import FAILURES, Health
from waypost.upstream.outage import Outage
from waypost.upstream.watch import MOST_WATCHED

ROOTS = ("https://one.example/deb/", "https://two.example/", "https://three.example/")
DOWN = {"down_since": 50.0}
LEFT = {"down_since": 50.0, "left": True}


class World:
    def __init__(self) -> None:
        self.now = 100.0
        self.pins = Pins(lambda: self.now)
        self.health = Health(lambda: self.now, lambda: 0.0)

    def outages(self, **found: dict[str, Any]) -> None:
        self.pins.take(Outage(f"{name}.example", "https://x/", **found[name]) for name in found)

    def chosen(self, pin: str | None) -> str:
        first, *others = (Redirect(f"{root}x", root=root, pin=pin) for root in ROOTS)
        redirect = Redirect(first.location, others=tuple(others), pin=pin, root=first.root)
        return choose(redirect, self.health, self.pins).location.split("/")[2].removesuffix(".example")


@pytest.fixture
def world() -> World:
    return World()


PIN = "skates"


def test_the_first_one_if_all_are_up(world: World) -> None:
    assert (world.chosen(None), world.chosen(PIN)) == ("one", "one")


def test_files_leave_an_upstream_at_once_and_indexes_after_a_while(world: World) -> None:
    world.outages(one=DOWN)
    assert (world.chosen(None), world.chosen(PIN)) == ("two", "one")
    world.outages(one=LEFT)
    assert (world.chosen(None), world.chosen(PIN)) == ("two", "two")


def test_files_come_from_where_the_index_comes_if_that_is_up(world: World) -> None:
    # One is back, but may be behind the index of two.
    world.outages(one={"up_since": 60.0, "left": True})
    assert (world.chosen(None), world.chosen(PIN)) == ("two", "two")
    world.outages(one={"up_since": 60.0, "left": True}, two=DOWN)
    assert (world.chosen(None), world.chosen(PIN)) == ("three", "two")
    world.outages(one={"up_since": 60.0, "left": True}, two=LEFT, three=LEFT)
    assert (world.chosen(None), world.chosen(PIN)) == ("one", "one")


def test_if_all_are_down_the_first_one(world: World) -> None:
    world.outages(one=LEFT, two=LEFT, three=LEFT)
    assert (world.chosen(None), world.chosen(PIN)) == ("one", "one")


def test_what_one_worker_finds_moves_no_index(world: World) -> None:
    for _ in range(FAILURES):
        world.health.failed("one.example", "gone")
    assert (world.chosen(None), world.chosen(PIN)) == ("two", "one")


def test_a_pinned_question_goes_to_one_upstream_alone(world: World) -> None:
    def then(head: Any) -> Refuse:
        return Refuse(500, "", "")

    first, *others = (Fetch(url=f"{root}x", then=then) for root in ROOTS)
    fetch = Fetch(url=first.url, then=then, others=tuple(others), pin=PIN)
    assert (pinned(fetch, world.pins).url, pinned(fetch, world.pins).others) == (f"{ROOTS[0]}x", ())
    world.outages(one=LEFT)
    assert (pinned(fetch, world.pins).url, pinned(fetch, world.pins).others) == (f"{ROOTS[1]}x", ())


def test_upstreams_are_known_by_what_is_configured(world: World) -> None:
    redirect = Redirect("https://one.example/a/b?c", others=(Redirect("https://two.example:8/x", root="https://t/r/"),))
    assert roots(redirect) == ["https://one.example/", "https://t/r/"]


def test_who_was_asked_for_is_remembered_for_a_while(world: World) -> None:
    world.pins.note(ROOTS[:2])
    world.now += ASKED_SECONDS
    world.pins.note(ROOTS[1:2])
    assert world.pins.asked() == {"one.example": ROOTS[0], "two.example": ROOTS[1]}
    world.now += 1
    assert world.pins.asked() == {"two.example": ROOTS[1]}
    world.pins.note(f"https://{number}.example/" for number in range(MOST_WATCHED * 2))
    assert len(world.pins.asked()) == MOST_WATCHED


def test_workers_tell_what_they_were_asked_for(tmp_path: Any) -> None:
    folder = tmp_path / "asked"
    assert told(folder, 2) == {}
    assert tell(folder, 0, {"a": "https://a/"})
    assert tell(folder, 1, {"b": "https://b/"})
    assert tell(folder, 2, {"c": "https://c/"})  # of a server with more workers
    assert told(folder, 2) == {"a": "https://a/", "b": "https://b/"}
    (folder / "worker0.json").write_text("[")
    assert told(folder, 2) == {"b": "https://b/"}
    (tmp_path / "file").write_text("")
    assert not tell(tmp_path / "file", 0, {})
