"""Golden cases: rules and requests in, answers and events out.

Each file of tests/golden/manifests is one case:

    rules       a manifest's rules as JSON; `domain` is added where none stands: NAME-OF-THE-FILE.golden.example
    package     [[package]] tables of waypost.toml, likewise
    refused     what the configuration is refused with, in the order of the file; then nothing is asked
    warnings    what `waypost check` warns of, without the host
    exchange    ask      "METHOD TARGET"
                host     if another than the case's own
                headers, body of the request; "$etag" is the ETag of the case's answer before this one
                status, and headers and text that the answer has; `without`: headers that it has not
                events   what is recorded, and whether it is counted [true]

Every case is tried twice: on the decision core, without a socket, and on a running server, whose store is read
afterwards. Both must give what the file says.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest
import tomlkit
from tests.support.server import WaypostServer, until

from waypost.artifacts.snapshot import Snapshot, decode_host, sites_of
from waypost.catalog.compile import compile_file
from waypost.routing.decision import Redirect, Refuse, Reply
from waypost.routing.request import Request
from waypost.routing.table import Table
from waypost.settings import SettingsError

FOLDER = Path(__file__).parent / "manifests"
CASES = {path.stem: tomllib.loads(path.read_text()) for path in sorted(FOLDER.glob("*.toml"))}
SERVED = [name for name, case in CASES.items() if "refused" not in case]
REFUSED = [name for name, case in CASES.items() if "refused" in case]
BASE = 'base_domain = "golden.example"\nmanifests = ["manifest.json"]\n[count]\nmerge_seconds = 0\n'
FIELDS = ("kind", "package", "owner", "version", "tag", "digest", "platform", "artifact", "variables", "upstream")


def host_of(name):
    return f"{name}.golden.example"


def rules_of(name):
    return [{"domain": host_of(name), **rule} for rule in json.loads(CASES[name].get("rules", "[]"))]


def packages_of(name):
    return [
        package if "domains" in package else {"domain": host_of(name), **package}
        for package in CASES[name].get("package", [])
    ]


def configure(folder, names):
    """Writes waypost.toml and manifest.json of some cases; the path of the first."""
    rules = [rule for name in names for rule in rules_of(name)]
    lines = ",\n".join(json.dumps(rule) for rule in rules)
    (folder / "manifest.json").write_text(f'{{"rules": [\n{lines}\n]}}')
    packages = [package for name in names for package in packages_of(name)]
    config = folder / "waypost.toml"
    config.write_text(BASE + (tomlkit.dumps({"package": packages}) if packages else ""))
    return config


def asked(exchange, name, before):
    """`before`: headers of the case's answer before this one, lower case."""
    method, _, target = exchange["ask"].partition(" ")
    headers = {
        key: re.sub(r"\$([a-z-]+)", lambda at: before[at[1]], value)
        for key, value in exchange.get("headers", {}).items()
    }
    return method, exchange.get("host", host_of(name)), target, headers, exchange.get("body", "").encode()


def expected_events(exchange):
    return sorted(({"counted": True, **event} for event in exchange.get("events", [])), key=str)


def compare(exchange, status, headers, body):
    assert status == exchange["status"], body
    for header, value in exchange.get("answer", {}).items():
        assert headers.get(header) == value, header
    for header in exchange.get("without", []):
        assert headers.get(header) is None, header
    if "text" in exchange and body is not None:
        assert body.decode() == exchange["text"]


# On the decision core.


def decide(snapshot, request):
    def sites(host):
        blob = snapshot.blob(host)
        return None if blob is None else sites_of(decode_host(blob))

    return Table(sites).decide(request)


def answer_of(decision, request):
    """(status, headers, body, facts) of a decision that asks nobody."""
    if isinstance(decision, Redirect):
        return decision.status, {"location": decision.location, **dict(decision.headers)}, b"", decision.facts
    if isinstance(decision, Refuse):
        return decision.status, dict(decision.headers), None, ()  # the gateway writes the words
    assert isinstance(decision, Reply), decision
    body = b"" if request.method == "HEAD" else decision.body
    return decision.status, dict(decision.headers), body, decision.facts


@pytest.mark.parametrize("name", SERVED)
def test_on_the_core(name, tmp_path):
    compiled = compile_file(configure(tmp_path, [name]), 8080)
    assert list(compiled.warnings) == [f"{host_of(name)}: {warning}" for warning in CASES[name].get("warnings", [])]
    before = {}
    for exchange in CASES[name]["exchange"]:
        method, host, target, headers, body = asked(exchange, name, before)
        path, question, query = target.partition("?")
        lines = [(header.lower(), value) for header, value in headers.items()]
        request = Request(method, host, path, query if question else None, lines, body)
        status, found, text, facts = answer_of(decide(Snapshot(compiled.snapshot), request), request)
        before = {header.lower(): value for header, value in found.items()}
        compare(exchange, status, before, text)
        # Whether something counts is the collector's to say, and who is left alone (C5) the recorder's.
        if any(header in ("dnt", "sec-gpc") and value == "1" for header, value in lines):
            facts = ()
        events = [msgspec.structs.asdict(fact) for fact in facts]
        events = [{field: event[field] for field in FIELDS if event[field] is not None} for event in events]
        wanted = [
            {key: value for key, value in event.items() if key != "counted"} for event in expected_events(exchange)
        ]
        assert sorted(events, key=str) == sorted(wanted, key=str), exchange["ask"]


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_reason(name, tmp_path):
    with pytest.raises(SettingsError) as caught:
        compile_file(configure(tmp_path, [name]), 8080)
    found = [str(problem).removeprefix(f"{tmp_path}/") for problem in caught.value.problems]
    assert len(found) == len(CASES[name]["refused"]), found
    for line, beginning in zip(found, CASES[name]["refused"], strict=True):
        assert line.startswith(beginning)


def test_one_check_tells_all_of_them(tmp_path):
    config = configure(tmp_path, REFUSED)
    command = [sys.executable, "-m", "waypost", "check", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    told = done.stderr.splitlines()[1:]
    wanted = [line for name in REFUSED for line in CASES[name]["refused"]]
    assert len(told) == len(wanted), done.stderr
    for line in wanted:
        words = line.split(": ", 2)[2].partition("; package[")[0]  # files, lines and indices are others here
        assert any(words in one for one in told), line


# On a server.


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden")
    configure(folder, SERVED)
    one = WaypostServer(folder, (folder / "waypost.toml").read_text(), workers=1).start()
    yield one
    assert one.stop() == 0


@pytest.fixture(scope="module")
def answers(server):
    """Every exchange of every case, asked once."""
    found = {}
    for name in SERVED:
        before = {}
        for number, exchange in enumerate(CASES[name]["exchange"]):
            method, host, target, headers, body = asked(exchange, name, before)
            mark = {"User-Agent": f"golden/{name}/{number}", **headers}
            found[name, number] = server.get(host, target, method, mark, body or None)
            before = found[name, number][1]
    return found


@pytest.fixture(scope="module")
def stored(server, answers):
    """What became of it, by exchange."""
    wanted = sum(len(expected_events(exchange)) for name in SERVED for exchange in CASES[name]["exchange"])
    until(lambda: server.metric("waypost_stored_total") >= wanted, what=f"{wanted} events to be stored")
    found = {key: [] for key in answers}
    for line in server.command("events").splitlines():
        event = json.loads(line)
        _, name, number = event["user_agent"].split("/")
        kept = {field: event[field] for field in (*FIELDS, "counted") if field in event}
        found[name, int(number)].append(kept)
    return found


@pytest.mark.parametrize("name", SERVED)
def test_on_a_server(name, answers, stored):
    for number, exchange in enumerate(CASES[name]["exchange"]):
        status, headers, body = answers[name, number]
        compare(exchange, status, headers, body)
        assert sorted(stored[name, number], key=str) == expected_events(exchange), exchange["ask"]


def test_the_server_warns_as_the_cases_say(server):
    log = server.log.read_text()
    for name in SERVED:
        for warning in CASES[name].get("warnings", []):
            assert f"{host_of(name)}: {warning}" in log
