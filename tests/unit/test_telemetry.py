from __future__ import annotations

import pytest

from waypost.artifacts.kind import HostPolicy
from waypost.artifacts.telemetry import InstallRow, InstallSite, TelemetryRow, TelemetrySite
from waypost.routing.request import Request

POLICY = HostPolicy("http://t.example")


def post(site, path, body=b"", headers=(), method="POST"):
    return site.decide(Request(method, "t.example", path, headers=headers, body=body))


def test_each_object_is_an_event():
    site = TelemetrySite([TelemetryRow("/events", "skates", "acme")], POLICY)
    reply = post(site, "/events", b'{"x": "Hello"}{"y": "World"}')
    assert reply.status == 200
    assert [(fact.kind, fact.package, fact.owner, fact.variables) for fact in reply.facts] == [
        ("telemetry", "skates", "acme", {"x": "Hello"}),
        ("telemetry", "skates", "acme", {"y": "World"}),
    ]


def test_other_paths_and_methods_are_not_its_own():
    site = TelemetrySite([TelemetryRow("/events", "skates")], POLICY)
    assert post(site, "/other") is None
    assert post(site, "/events", method="GET") is None


@pytest.mark.parametrize(
    ("tokens", "authorization", "status"),
    [
        (None, None, 200),
        (["a", "b"], "Bearer b", 200),
        (["a", "b"], "bearer  a ", 200),
        (["a", "b"], "Bearer c", 401),
        (["a", "b"], "Basic a", 401),
        (["a", "b"], None, 401),
        (["a"], "Bearer \xff", 401),
        ([], "Bearer a", 401),
        ([""], None, 401),
    ],
)
def test_access_tokens(tokens, authorization, status):
    site = TelemetrySite([TelemetryRow("/events", "skates", None, tokens)], POLICY)
    headers = [("authorization", authorization)] if authorization is not None else []
    decision = post(site, "/events", b'{"x": 1}', headers)
    assert decision.status == status
    assert bool(getattr(decision, "facts", ())) == (status == 200)


INSTALL = InstallSite([InstallRow()], POLICY)


def test_install_reports():
    body = b'{"libraryType": "npm", "dependencyInfo": {"parent": {"name": "skates", "version": "1.2"}}}'
    reply = post(INSTALL, "/package-event/install", body)
    assert (reply.status, dict(reply.headers)["content-type"]) == (200, "application/json")
    (fact,) = reply.facts
    assert (fact.kind, fact.package, fact.version, fact.variables["libraryType"]) == (
        "telemetry",
        "skates",
        "1.2",
        "npm",
    )
    assert post(INSTALL, "/package-event/install/an-id", body).facts[0].package == "an-id"


def test_install_reports_that_are_none():
    assert post(INSTALL, "/package-event/install", b'{"x": ').status == 422
    assert post(INSTALL, "/package-event/install", b"\xff").status == 422
    assert post(INSTALL, "/package-event/install", b"[" * 60_000).status == 422
    assert post(INSTALL, "/package-event/install", b"[]").status == 200
    assert post(INSTALL, "/package-event/install", method="GET").status == 405
    for path in ("/package-event", "/package-event/installed", "/package-event/install/a/b"):
        assert post(INSTALL, path, b"{}") is None
