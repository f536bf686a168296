"""`waypost move` between two real registries, under a Waypost that is serving; skopeo copies what it says."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from tests.clients import registries
from tests.clients.pulls import HOST, run, upstreams
from tests.clients.registries import Image, Registry
from tests.support.server import WaypostServer, until

from waypost.console.client import numbers

PACKAGE = "acme/rocket-skates"
CONFIG = """\
base_domain = "waypost.example"  # ours
[containers]
tag_ttl = 1
[[package]]
type = "container"
name = "acme/rocket-skates"
domain = "127.0.0.1"
upstream = '{old}'   # where they are today
"""


class House:
    """The old and the new registry, what is on them, and a Waypost in front of the old one.

    Both are called by their real addresses, so that the commands that are printed can be run as they are.
    """

    def __init__(self, folder: Path, old: Registry, new: Registry, home: dict[str, str]) -> None:
        self.old, self.new, self.home = old, new, home
        self.text = CONFIG.format(old=f"{old.host}/old/skates") + upstreams({one.host: one.url for one in (old, new)})
        self.server = WaypostServer(folder, self.text).start()
        settings = Path(home["HOME"]) / ".config/containers/registries.conf"
        settings.parent.mkdir(parents=True)
        # These registries have no TLS, which the commands cannot know; nothing else about them is changed.
        settings.write_text("".join(f'[[registry]]\nlocation = "{one.host}"\ninsecure = true\n' for one in (old, new)))

    def pull(self, reference: str) -> None:
        """A whole pull through Waypost by skopeo."""
        folder = Path(self.home["HOME"]) / "pulled"
        source = f"docker://{HOST}:{self.server.port}/{PACKAGE}{reference}"
        run(self.home, "skopeo", "copy", "--src-tls-verify=false", source, f"dir:{folder}")

    def last_upstreams(self, many: int) -> list[str]:
        """Registries that the last pulls came from, when there are so many of them."""
        found = until(lambda: (pulls := self.pulls()) if len(self.pulls()) >= many else None, what=f"{many} pulls")
        assert isinstance(found, list)
        assert len(found) == many
        return found

    def pulls(self) -> list[str]:
        events = list(numbers(self.server.data.root).events(False))
        return [event["upstream"] for event in sorted(events, key=lambda one: one["time"]) if event["counted"]]

    def move(self, *arguments: str, status: int = 0) -> tuple[str, str]:
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=90)
        assert done.returncode == status, done.stderr + done.stdout
        return done.stdout, done.stderr

    def command(self, *arguments: str) -> list[str]:
        where = ("--config", str(self.server.config), "--data", str(self.server.data.root))
        return [sys.executable, "-m", "waypost", "move", PACKAGE, *arguments, *where]


@pytest.fixture
def house(tmp_path: Path, home: dict[str, str]) -> Iterator[House]:
    started: list[Registry] = []
    try:
        for name in ("old", "new"):
            one = Registry(tmp_path / name, "", {})
            one.host = one.url.removeprefix("http://")
            started.append(one)
        (tmp_path / "waypost").mkdir()
        made = House(tmp_path / "waypost", started[0], started[1], home)
        try:
            yield made
        finally:
            made.server.stop()
    finally:
        for one in started:
            one.stop()


@pytest.fixture
def images() -> dict[str, Image]:
    return {name: registries.multi_arch(name, 1000) for name in ("one", "two", "edge", "older edge", "other edge")}


@pytest.fixture
def lived_in(house: House, images: dict[str, Image]) -> House:
    """People pull 1.0, edge, and by its digest what edge was before. The new registry has 1.1, and another edge."""
    house.old.push("old/skates", "edge", images["older edge"])
    house.pull(f"@{images['older edge'].top}")
    for tag, name in (("1.0", "one"), ("1.1", "two"), ("edge", "edge")):
        house.old.push("old/skates", tag, images[name])
    house.new.push("new/skates", "1.1", images["two"])
    house.new.push("new/skates", "edge", images["other edge"])
    house.pull(":1.0")
    house.pull(":1.0")
    house.pull(":edge")
    assert house.last_upstreams(4) == [house.old.host] * 4
    return house


def test_moving_house(lived_in: House, images: dict[str, Image]) -> None:
    house = lived_in
    to = f"{house.new.host}/new/skates"
    children = house.server.children()

    # Refused, and nothing is changed, as long as somebody would notice.
    stdout, stderr = house.move(to, status=2)
    rows = [line.split() for line in stdout.splitlines() if re.match(r"(missing|different|unknown|gone|same)", line)]
    assert rows[0] == ["missing", "1.0", "2", "pulls"]
    older = images["older edge"].top[:19]
    assert sorted(row[:4] for row in rows[1:3]) == sorted(
        [["different", "edge", "1", "pull"], ["missing", older, "1", "pull"]]
    )
    assert rows[3:] == [["same:", "1", "of", "4,", "0", "of", "them", "pulled", "lately"]]
    assert "1 tag and 1 digest in use are not there" in stderr
    assert "1 tag in use is something else there" in stderr
    assert "asked 8 of 8" in stderr
    assert house.server.config.read_text() == house.text
    assert house.move(to, "--dry-run", status=2)[0] == stdout

    # Its own words, as they are, make both sides the same: by tag, and by digest what no tag names any more.
    commands = [line.strip() for line in stdout.splitlines() if line.startswith("    ")]
    assert len(commands) == 3
    for command in commands:
        run(house.home, "sh", "-c", command)
    stdout, _ = house.move(to, "--dry-run")
    assert "same: 4 of 4, 3 of them pulled lately" in stdout
    assert house.server.config.read_text() == house.text

    # It moves, and the next pull comes from there: the same server, the same processes.
    with Moving(house, to) as moving:
        moving.says("The running server has taken it up.")
        moving.says("Watching for")
        house.pull(":1.0")
        assert f"{PACKAGE}:1.0  through {house.new.host}" in moving.says(f"{PACKAGE}:1.0")
        moving.interrupt()
        moving.says(f"1 pull through {house.new.host}.")
    changed = house.text.replace(f"'{house.old.host}/old/skates'", f'"{to}"')
    assert house.server.config.read_text() == changed
    house.pull(f"@{images['older edge'].top}")
    assert house.last_upstreams(6)[4:] == [house.new.host] * 2
    assert house.server.children() == children

    # And back, to the byte.
    stdout, _ = house.move("--undo", "--watch", "0")
    assert "The running server has taken it up." in stdout
    assert house.server.config.read_text() == house.text
    house.pull(":1.0")
    assert house.last_upstreams(7)[6:] == [house.old.host]
    assert house.server.children() == children
    assert "no move of acme/rocket-skates is remembered" in house.move("--undo", status=2)[1]


def test_the_old_one_may_stay_behind_and_be_left_later(lived_in: House, images: dict[str, Image]) -> None:
    house = lived_in
    to, old = f"{house.new.host}/new/skates", f"{house.old.host}/old/skates"
    for tag, name in (("1.0", "one"), ("edge", "edge")):
        house.new.push("new/skates", tag, images[name])
    # A digest that is not there is served from the old one: nobody would notice, so there is nothing to refuse.
    stdout, _ = house.move(to, "--keep-old", "--watch", "0")
    assert f"waypost move {PACKAGE} {to} --from {old}" in stdout
    house.pull(":edge")
    house.pull(f"@{images['older edge'].top}")
    assert house.last_upstreams(6)[4:] == [house.new.host, house.old.host]
    # To leave the old one means to lack that digest.
    _, stderr = house.move(to, "--from", old, "--watch", "0", status=2)
    assert "1 digest in use is not there" in stderr
    stdout, _ = house.move(to, "--from", old, "--watch", "0", "--force")
    assert "Moving all the same: 1 digest in use is not there." in stdout
    assert f'upstream = ["{to}"]' in house.server.config.read_text()


def test_an_index_whose_images_were_not_copied_is_missing(lived_in: House, images: dict[str, Image]) -> None:
    house = lived_in
    image = images["one"]
    house.new.push("new/skates", "1.0", image)
    lost = next(digest for digest in image.platforms if digest != image.native)
    link = house.new.storage / "docker/registry/v2/repositories/new/skates/_manifests/revisions/sha256"
    (link / lost.removeprefix("sha256:") / "link").unlink()
    stdout, _ = house.move(f"{house.new.host}/new/skates", "--dry-run", status=2)
    assert re.search(rf"^missing +1\.0 .*{lost}", stdout, re.MULTILINE)


def test_a_registry_that_does_not_answer_is_unknown(lived_in: House) -> None:
    house = lived_in
    house.new.stop()
    stdout, stderr = house.move(f"{house.new.host}/new/skates", "--dry-run", status=2)
    assert len(re.findall(r"^unknown .*no connection", stdout, re.MULTILINE)) == 4
    assert "of 3 tags and 1 digest it is not known what is there" in stderr


def test_an_old_registry_that_is_gone_is_left_by_what_was_pulled_last(
    lived_in: House, images: dict[str, Image]
) -> None:
    house = lived_in
    for tag, name in (("edge", "older edge"), ("1.0", "one"), ("edge", "edge")):
        house.new.push("new/skates", tag, images[name])
    house.old.stop()
    stdout, _ = house.move(f"{house.new.host}/new/skates", "--force", "--watch", "0")
    assert "same: 3 of 3, 3 of them pulled lately" in stdout
    assert "Moving all the same: the tags of the old upstream are not known" in stdout
    house.pull(":1.0")
    assert house.last_upstreams(5)[4:] == [house.new.host]


def test_registries_that_want_tokens_are_asked_with_one(tmp_path: Path, images: dict[str, Image]) -> None:
    (tmp_path / "registries").mkdir()
    with registries.running(tmp_path / "registries") as upstream:
        upstream.guarded.push("acme/skates", "1.0", images["one"])
        upstream.guarded.push("acme/skates", "1.1", images["two"])
        upstream.open.push("acme/skates", "1.0", images["one"])
        text = CONFIG.format(old="reg2.example/acme/skates") + upstreams(upstream.connect)
        server = WaypostServer(tmp_path, text).start()
        try:
            stdout = server.command("move", PACKAGE, "reg1.example/acme/skates", "--watch", "0")
            assert re.search(r"^missing +1\.1 +not pulled lately$", stdout, re.MULTILINE)
            # And the other way, where it is the new one that wants a token.
            stdout = server.command("move", PACKAGE, "reg2.example/acme/skates", "--watch", "0")
            assert "same: 1 of 1" in stdout
        finally:
            server.stop()
        scopes = {one["scope"] for one in upstream.tokens.asked}
        assert scopes == {"repository:acme/skates:pull"}
        assert len(upstream.tokens.asked) == 2  # one for each of the two comparisons, not one for each question


class Moving:
    """A move that goes on, line by line."""

    def __init__(self, house: House, to: str) -> None:
        self._process = subprocess.Popen(
            house.command(to, "--watch", "60"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,))
        self._reader.start()

    def _read(self, stream: IO[str]) -> None:
        self._lines.extend(iter(stream.readline, ""))

    def says(self, text: str) -> str:
        def said() -> str | None:
            return next((line for line in list(self._lines) if text in line), None)

        return str(until(said, what=f"{text!r} in {json.dumps(self._lines)}"))

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def __enter__(self) -> Moving:
        return self

    def __exit__(self, *failed: object) -> None:
        if failed[0] is not None:
            self._process.kill()
        status = self._process.wait(30)
        self._reader.join()
        with self._process.stdout or sys.stdin, self._process.stderr or sys.stdin as errors:
            said = errors.read()
        assert failed[0] is not None or status == 0, said
