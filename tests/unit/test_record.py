from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from waypost.events.event import Event, decode_event, encode_event
from waypost.events.identity import Identity
from waypost.events.spool import Spool, read_frames, segments
from waypost.gateway.address import TrustedProxies
from waypost.gateway.record import MAX_TEXT, Recorder, is_partial, starts_at_zero
from waypost.routing.decision import Fact
from waypost.routing.request import Request

PEER = "192.0.2.7"
MARKED = "203.0.113.77"
FACT = Fact(kind="binary-download", package="skates", owner="acme", version="1.2", variables={"version": "1.2"})


class House:
    """A recorder and the spool that it writes to."""

    def __init__(self, folder: Path, trusted: Sequence[str] = ()) -> None:
        self._folder = folder / "spool"
        self._folder.mkdir()
        self._spool = Spool(self._folder, "w0", 1 << 20)
        self.recorder = Recorder(self._spool, Identity(folder / "identity", "month"), TrustedProxies(trusted))

    def record(self, *headers: tuple[str, str], facts: tuple[Fact, ...] = (FACT,), peer: str = PEER) -> None:
        request = Request("GET", "get.acme.example", "/1.2/skates", None, headers)
        self.recorder.record(request, facts, 307, peer)

    def events(self) -> list[Event]:
        self._spool.close()
        return [decode_event(event) for one in segments(self._folder) for event in read_frames(one.path).events]


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_an_event_has_what_the_fact_and_the_request_say(house: House) -> None:
    house.record(("user-agent", "curl/8"), ("referer", "https://acme.example/"), ("range", "bytes=7-"))
    (event,) = house.events()
    assert (event.kind, event.package, event.owner, event.version) == ("binary-download", "skates", "acme", "1.2")
    assert (event.domain, event.method, event.path, event.status) == ("get.acme.example", "GET", "/1.2/skates", 307)
    assert (event.user_agent, event.referer, event.partial) == ("curl/8", "https://acme.example/", True)
    assert event.variables == {"version": "1.2"}
    assert house.recorder.recorded == 1


def test_every_fact_is_an_event_of_the_same_moment_with_an_id_of_its_own(house: House) -> None:
    house.record(facts=(FACT, FACT, FACT))
    events = house.events()
    assert len({event.id for event in events}) == len(events) == 3
    assert len({event.time for event in events}) == 1
    assert house.recorder.recorded == 3


@pytest.mark.parametrize("header", ["dnt", "sec-gpc"])
def test_who_asks_not_to_be_tracked_leaves_no_event(house: House, header: str) -> None:
    """C5. Any value but "1" asks for nothing."""
    house.record(("user-agent", "curl/8"), (header, "1"))
    assert house.recorder.recorded == 0
    house.record(("user-agent", "curl/8"), (header, "0"))
    assert len(house.events()) == 1


def test_long_headers_are_cut(house: House) -> None:
    house.record(("user-agent", "a" * (MAX_TEXT + 1)), ("referer", "b" * (MAX_TEXT + 1)))
    (event,) = house.events()
    assert event.user_agent == "a" * MAX_TEXT
    assert event.referer == "b" * MAX_TEXT


def test_text_of_any_bytes_can_be_recorded(house: House) -> None:
    text = bytes(range(1, 256)).decode("latin-1")
    house.record(("user-agent", text), ("referer", text))
    (event,) = house.events()
    assert (event.user_agent, event.referer) == (text, text)


def test_origins_differ_by_user_agent_and_endpoints_do_not(house: House) -> None:
    house.record(("user-agent", "curl/8"))
    house.record(("user-agent", "Wget/1"))
    one, other = house.events()
    assert one.origin_id != other.origin_id
    assert one.endpoint_id == other.endpoint_id


def test_the_address_is_the_peers_unless_a_trusted_proxy_says_otherwise(tmp_path: Path) -> None:
    house = House(tmp_path, ["10.0.0.0/8"])
    house.record(("x-forwarded-for", MARKED), peer="10.1.1.1")
    house.record(peer=MARKED)
    house.record(("x-forwarded-for", MARKED), peer=PEER)
    house.record(peer=PEER)
    told, direct, not_believed, peer = [event.endpoint_id for event in house.events()]
    assert told == direct
    assert not_believed == peer
    assert told != peer


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("x-forwarded-for", MARKED),),
        (("x-forwarded-for", f"{MARKED}, 10.1.1.1"),),
        (("x-real-ip", MARKED), ("forwarded", f"for={MARKED}")),
    ],
)
@pytest.mark.parametrize("trusted", [(), (f"{MARKED}/32", "10.0.0.0/8")])
def test_no_address_is_in_an_event(
    tmp_path: Path, trusted: Sequence[str], headers: tuple[tuple[str, str], ...]
) -> None:
    house = House(tmp_path, trusted)
    house.record(("user-agent", "curl/8"), *headers, peer=MARKED)
    (event,) = house.events()
    raw = encode_event(event)
    assert MARKED.encode() not in raw
    assert bytes(map(int, MARKED.split("."))) not in raw


@pytest.mark.parametrize(
    ("requested", "from_the_start"),
    [
        ("bytes=0-", True),
        ("bytes=0-499", True),
        ("bytes=00-", True),
        ("bytes=0-0,100-", True),
        ("bytes= 0-1", True),
        ("Bytes=0-1", True),
        ("bytes=1-", False),
        ("bytes=500-999", False),
        ("bytes=100-,0-1", False),
        ("bytes=-500", False),
        ("bytes = -500", False),
        # More digits than Python turns into a number.
        ("bytes=" + "1" * 5000 + "-", False),
        # RFC 9110 section 14.2: what is no byte range is ignored.
        ("", True),
        ("bytes", True),
        ("bytes=", True),
        ("bytes=x-y", True),
        ("bytes=\xb2-", True),
        ("items=5-", True),
    ],
)
def test_ranges_that_begin_with_the_file(requested: str, from_the_start: bool) -> None:
    """C4."""
    assert starts_at_zero(requested) is from_the_start
    assert is_partial(requested) is not from_the_start


def test_without_a_range_everything_is_asked_for() -> None:
    assert not is_partial(None)
