"""npm, yarn 1, yarn 4 and pnpm, with verdaccio behind Waypost."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.clients.programs import client
from tests.clients.pulls import HOST, Event, Waypost, run, upstreams
from tests.clients.verdaccio import Verdaccio, content
from tests.support.server import until
from tests.support.upstream import RawUpstream, says, sized

PUBLISHED = (("skates", "1.0.0"), ("skates", "1.1.0"), ("@acme/skates", "2.0.0"), ("laces", "3.0.0"))
# What is installed: a scoped package, one that it depends on, and one that only the fallback has.
INSTALLED = (("@acme/skates", "2.0.0"), ("skates", "1.1.0"), ("laces", "3.0.0"))
COUNTED = [("@acme/skates", "2.0.0", "skates-2.0.0.tgz"), ("skates", "1.1.0", "skates-1.1.0.tgz")]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Verdaccio]:
    one = Verdaccio(tmp_path_factory.mktemp("npm") / "registry")
    try:
        for name, version in PUBLISHED:
            depends = {"skates": "^1.0.0", "laces": "3.0.0"} if name == "@acme/skates" else {}
            one.publish(name, version, **depends)
        yield one
    finally:
        one.stop()


@pytest.fixture(scope="module")
def fallback(tmp_path_factory: pytest.TempPathFactory, registry: Verdaccio) -> Iterator[Verdaccio]:
    one = Verdaccio(tmp_path_factory.mktemp("npm") / "fallback", registry)
    yield one
    one.stop()


def config(first: str, *others: str, fallback: str = "", declared: tuple[str, ...] = ("skates", "@acme/skates")) -> str:
    text = 'base_domain = "waypost.example"\nowner = "acme"\n[count]\nmerge_seconds = 0\n'
    if fallback:
        text += f'[[domain]]\nhost = "{HOST}"\nfallback = "{fallback}/"\n'
    for name in declared:
        text += f'[[package]]\ntype = "npm"\nname = "{name}"\ndomain = "{HOST}"\nupstream = {json.dumps([first, *others])}\n'
    return text + upstreams({url.removeprefix("http://"): url for url in {first, *others, fallback} if url})


class OneWorker(Waypost):
    """Stores events in the order in which it answers, so that one that is known comes after all before it."""

    workers = 1

    def new(self) -> list[Event]:
        """What was recorded since this was asked last. How many packuments clients ask for is theirs to choose."""
        last = ("last", str(self._taken))
        self.ask("/skates/latest", **{"User-Agent": "/".join(last)})
        until(lambda: last in map(_client, self.events()), what="the last event")
        return [event for event in self.take(len(self.events()) - self._taken) if _client(event) != last]


def _client(event: Event) -> tuple[str | None, str | None]:
    return event.get("client"), event.get("client_version")


@pytest.fixture(scope="module")
def waypost(tmp_path_factory: pytest.TempPathFactory, registry: Verdaccio, fallback: Verdaccio) -> Iterator[OneWorker]:
    one = OneWorker(tmp_path_factory.mktemp("waypost"), config(registry.url, fallback=fallback.url))
    yield one
    one.stop()


class Client(NamedTuple):
    """How a client installs @acme/skates, and again what its lock file says.

    settings  file of the project → what stands in it, with {base}, and {home} for a folder of its own
    broken    what it says if a tarball is not what the lock file says
    """

    name: str
    install: tuple[str, ...]
    again: tuple[str, ...]
    lock: str
    settings: dict[str, str]
    broken: str
    says: tuple[str | None, str | None]


CLIENTS = {
    one.name: one
    for one in (
        Client(
            "npm11",
            ("install", "@acme/skates"),
            ("ci",),
            "package-lock.json",
            {".npmrc": "registry={base}/\naudit=false\nfund=false\nupdate-notifier=false\nfetch-retries=0\n"},
            "EINTEGRITY",
            ("npm", "11.19.1"),
        ),
        Client(
            "yarn1",
            ("add", "@acme/skates"),
            ("install", "--frozen-lockfile"),
            "yarn.lock",
            {".yarnrc": 'registry "{base}/"\ncache-folder "{home}/cache"\ndisable-self-update-check true\n'},
            "Integrity check failed",
            ("yarn", "1.22.22"),
        ),
        Client(
            "yarn4",
            ("add", "@acme/skates"),
            ("install", "--immutable"),
            "yarn.lock",
            {
                ".yarnrc.yml": 'npmRegistryServer: "{base}"\nunsafeHttpWhitelist: ["127.0.0.1"]\nnodeLinker: node-modules\n'
                "enableTelemetry: false\nnpmMinimalAgeGate: 0\nenableGlobalCache: true\n",
                "yarn.lock": "",
            },
            "YN0018",
            ("got", None),
        ),
        Client(
            "pnpm",
            ("add", "@acme/skates"),
            ("install", "--frozen-lockfile"),
            "pnpm-lock.yaml",
            {
                ".npmrc": "registry={base}/\n",
                "pnpm-workspace.yaml": "minimumReleaseAge: 0\nnodeLinker: hoisted\nfetchRetries: 0\n",
            },
            "ERR_PNPM_TARBALL_INTEGRITY",
            ("pnpm", "12.21.0"),
        ),
    )
}


class Project:
    """A folder into which a client installs, with a cache that nobody else has."""

    def __init__(self, folder: Path, one: Client, base: str, lock: str | None = None) -> None:
        self.client = one
        self.folder = folder / "app"
        self.folder.mkdir(parents=True)
        self._home = {"PATH": os.environ["PATH"], "HOME": str(folder)}
        package: dict[str, Any] = {"name": "app", "version": "1.0.0", "private": True}
        if lock is not None:
            package["dependencies"] = {"@acme/skates": "^2.0.0"}
        (self.folder / "package.json").write_text(json.dumps(package))
        for name, text in one.settings.items():
            (self.folder / name).write_text(text.replace("{base}", base).replace("{home}", str(folder)))
        if lock is not None:
            self.lock.write_text(lock)

    @property
    def lock(self) -> Path:
        return self.folder / self.client.lock

    def run(self, *arguments: str) -> tuple[int, str]:
        command = (client(self.client.name), *arguments)
        done = subprocess.run(
            command, cwd=self.folder, env=self._home, capture_output=True, text=True, timeout=60, check=False
        )
        return done.returncode, done.stdout + done.stderr

    def install(self, *arguments: str) -> None:
        status, said = self.run(*arguments)
        assert status == 0, said
        for name, version in INSTALLED:
            assert (self.folder / "node_modules" / name / "index.js").read_text() == content(name, version)

    def forget(self) -> None:
        run(self._home, "rm", "-rf", str(self.folder / "node_modules"))


def counted(events: list[Event]) -> list[tuple[str, str, str]]:
    return sorted((e["package"], e["version"], e["artifact"]) for e in events if e["counted"])


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_installs_and_installs_again(
    tmp_path: Path, registry: Verdaccio, fallback: Verdaccio, waypost: OneWorker, name: str
) -> None:
    one = CLIENTS[name]
    base = f"http://{waypost.address}"
    project = Project(tmp_path / "first", one, base)
    project.install(*one.install)
    events = waypost.new()
    assert counted(events) == COUNTED
    assert set(map(_client, events)) == {one.says}
    assert {event["upstream"] for event in events if event["counted"]} == {registry.host}
    assert {event["kind"] for event in events if not event["counted"]} == {"index-fetch"}

    lock = project.lock.read_text()
    assert registry.host not in lock
    assert (f"{base}/skates/-/skates-1.1.0.tgz" in lock) is (name in ("npm11", "yarn1"))

    # Up to date: what it has is not fetched again.
    project.forget()
    project.install(*one.again)
    assert counted(waypost.new()) == []

    # Another machine, from the lock file.
    other = Project(tmp_path / "second", one, base, lock)
    other.install(*one.again)
    assert counted(waypost.new()) == COUNTED
    assert other.lock.read_text() == lock


def test_a_tarball_that_was_changed_is_found_out(tmp_path: Path, registry: Verdaccio, fallback: Verdaccio) -> None:
    """Hashes pass through untouched, so that each client tells."""
    waypost = Waypost(tmp_path, config(registry.url, fallback=fallback.url))
    try:
        base = f"http://{waypost.address}"
        locks = {}
        for name, one in CLIENTS.items():
            project = Project(tmp_path / name, one, base)
            project.install(*one.install)
            locks[name] = project.lock.read_text()
        tarball = registry.storage / "skates/skates-1.1.0.tgz"
        whole = tarball.read_bytes()
        tarball.write_bytes(gzip.compress(gzip.decompress(whole).replace(b"skates 1.1.0", b"skates 1.1.1")))
        try:
            for name, one in CLIENTS.items():
                status, said = Project(tmp_path / f"{name}-again", one, base, locks[name]).run(*one.again)
                assert status != 0, name
                assert one.broken in said, said
        finally:
            tarball.write_bytes(whole)
    finally:
        waypost.server.stop()


def test_the_second_registry_serves_while_the_first_is_down(tmp_path: Path, registry: Verdaccio) -> None:
    first = Verdaccio(tmp_path / "first", registry)
    waypost = Waypost(tmp_path, config(first.url, registry.url, fallback=registry.url))
    try:
        first.stop()
        Project(tmp_path / "npm", CLIENTS["npm11"], f"http://{waypost.address}").install("install", "@acme/skates")
        until(lambda: len(counted(waypost.events())) == 2, what="the tarballs")
        events = waypost.events()
        assert counted(events) == COUNTED
        assert {event["upstream"] for event in events if event["counted"]} == {registry.host}
    finally:
        waypost.server.stop()


def test_what_else_npm_asks(tmp_path: Path, registry: Verdaccio, fallback: Verdaccio, waypost: OneWorker) -> None:
    base = f"http://{waypost.address}"
    project = Project(tmp_path, CLIENTS["npm11"], base)
    assert "PONG" in project.run("ping")[1]
    assert project.run("view", "@acme/skates", "dist.tarball")[1].strip() == f"{base}/@acme/skates/-/skates-2.0.0.tgz"
    scope = (f"--@acme:registry={base}/", "--registry=http://127.0.0.1:1/")
    assert project.run("view", "@acme/skates", "version", *scope)[1].strip() == "2.0.0"
    assert "latest: 2.0.0" in project.run("dist-tag", "ls", "@acme/skates")[1]
    assert waypost.ask("/skates/latest")[0] == 200
    assert "laces" in project.run("search", "laces")[1]
    assert "No matching version found for skates@9" in project.run("install", "skates@9")[1]
    project.install("install", "@acme/skates")
    # verdaccio has no audits: what it says shows that the question came to it, as it was posted.
    assert f"404 Not Found - POST {fallback.url}/-/npm/v1/security/advisories/bulk" in project.run("audit")[1]
    (project.folder / "package.json").write_text('{"name": "skates", "version": "5.0.0"}')
    status, said = project.run("publish", f"--//{waypost.address}/:_authToken=anybody")
    assert status != 0
    assert "405 Method Not Allowed - PUT" in said
    assert counted(waypost.new()) == COUNTED


def test_without_a_fallback_npm_says_why(tmp_path: Path, registry: Verdaccio) -> None:
    waypost = Waypost(tmp_path, config(registry.url))
    try:
        project = Project(tmp_path / "npm", CLIENTS["npm11"], f"http://{waypost.address}")
        status, said = project.run("install", "laces")
        assert status != 0
        assert "No package of this name is published at this address, and it has no fallback." in said
    finally:
        waypost.stop()


ANSWERS: dict[str, tuple[bytes, int]] = {
    "web-page": (sized(b"<!DOCTYPE html><title>Maintenance</title>", b"Content-Type: text/html"), 503),
    "cut-off": (sized(b'{"name": "cut-off", "versions": {')[:-4], 503),
    "half": (sized(b'{"name": "half", "versions": {"1.0.0": {"dist": {"tarball": "https://r.ex'), 503),
    "somebody": (sized(b'{"name": "else", "versions": {}}'), 503),
    "absent": (sized(b"{}", status=b"404 Not Found"), 404),
    "wants-login": (sized(b"{}", status=b"401 Unauthorized"), 503),
}


def test_what_is_no_packument_is_neither_given_out_nor_counted(tmp_path: Path) -> None:
    upstream = RawUpstream({f"/{name}": says(answer) for name, (answer, _) in ANSWERS.items()})
    waypost = Waypost(tmp_path, config(upstream.url, declared=tuple(ANSWERS)))
    try:
        for name, (_, status) in ANSWERS.items():
            for path in (f"/{name}", f"/{name}/-/{name}-1.0.0.tgz"):
                assert (path, waypost.ask(path)[0]) == (path, status)
    finally:
        waypost.stop()
        upstream.close()
    assert waypost.events() == []
    assert not list(tmp_path.rglob("*.page"))
