from __future__ import annotations

import uuid
from pathlib import Path

import msgspec
import pytest

from waypost.events.event import Event, decode_event, encode_event, new_id
from waypost.events.identity import Identity
from waypost.events.spool import Spool, read_frames, segments
from waypost.gateway.address import TrustedProxies
from waypost.gateway.record import Recorder
from waypost.routing.decision import Fact
from waypost.routing.request import Request

# Every field has a value of its own, so that none can stand in another's place unseen.
FACT = Fact(
    kind="manifest-fetch",
    package="acme/skates",
    owner="acme",
    version="1",
    tag="latest",
    digest="sha256:aa",
    platform="linux/arm64",
    artifact="index",
    variables={"version": "1"},
    upstream="ghcr.io",
    lists={"sha256:bb": "linux/amd64"},
)


@pytest.fixture
def recorded(tmp_path: Path):
    (tmp_path / "spool").mkdir()
    spool = Spool(tmp_path / "spool", "w0", 1 << 20)
    recorder = Recorder(spool, Identity(tmp_path / "identity", "month"), TrustedProxies(()))

    def record(headers: list[tuple[str, str]], *facts: Fact) -> list[Event]:
        recorder.record(Request("GET", "get.acme.example", "/v1/a", "q=1", headers), facts, 307, "192.0.2.7", 512)
        spool.close()
        return [decode_event(event) for one in segments(tmp_path / "spool") for event in read_frames(one.path).events]

    return record


def test_every_field_of_an_event_is_in_its_place(recorded) -> None:
    (event,) = recorded([("user-agent", "curl/8"), ("referer", "https://acme.example/"), ("range", "bytes=5-")], FACT)
    own = {"id", "time", "origin_id", "endpoint_id"}
    assert {name: value for name, value in msgspec.structs.asdict(event).items() if name not in own} == {
        **msgspec.structs.asdict(FACT),
        "domain": "get.acme.example",
        "method": "GET",
        "path": "/v1/a",
        "status": 307,
        "partial": True,
        "user_agent": "curl/8",
        "referer": "https://acme.example/",
        "origin_was": None,
        "endpoint_was": None,
        "country": None,
        "network": None,
        "size": 512,
    }
    assert len(event.origin_id or b"") == len(event.endpoint_id or b"") == 16
    assert event.origin_id != event.endpoint_id


def test_an_event_and_the_tuple_of_its_fields_are_the_same_bytes() -> None:
    event = Event(id=bytes(16), time=7, kind="telemetry", package="p", domain="d")
    assert encode_event(event) == encode_event(msgspec.structs.astuple(event))


def test_an_id_is_a_uuid_of_version_7_that_holds_its_time() -> None:
    ids = {new_id(1_795_219_200_123_456) for _ in range(1000)}
    assert len(ids) == 1000
    for one in ids:
        read = uuid.UUID(bytes=one)
        assert (read.version, read.variant) == (7, uuid.RFC_4122)
        assert int.from_bytes(one[:6]) == 1_795_219_200_123
