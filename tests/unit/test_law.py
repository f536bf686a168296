"""The law of counting, rule by rule: docs/what-we-count.md and these tests cite the same numbers."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from waypost.counting.law import COMPANIONS, Source
from waypost.counting.pulls import Pulls
from waypost.events.event import Event
from waypost.stores.store import Verdict

S = 1_000_000
AMD, ARM, ATT = "sha256:amd", "sha256:arm", "sha256:att"
INDEX = {AMD: "linux/amd64", ARM: "linux/arm64/v8"}


class Client:
    """One source, which asks for things."""

    def __init__(self, merge_seconds: int = 10) -> None:
        self.source = Source(merge_seconds * S)
        self.facts: list[Event] = []
        self.verdicts: list[Verdict] = []
        self._ids = count(1)

    def ask(self, kind: str, at: float = 0, **fields: Any) -> Verdict:
        fields = {"package": "acme/skates", "domain": "acme.example"} | fields
        fact = Event(id=next(self._ids).to_bytes(16), time=int(at * S), kind=kind, **fields)
        self.facts.append(fact)
        self.verdicts.append(self.source.judge(fact)[0])
        return self.verdicts[-1]

    def download(self, path: str = "/1/skates.tar.gz", at: float = 0, **fields: Any) -> Verdict:
        return self.ask("binary-download", at, path=path, **fields)

    def head(self, tag: str | None, digest: str, at: float = 0, **fields: Any) -> Verdict:
        return self.ask("manifest-head", at, method="HEAD", tag=tag, digest=digest, **fields)

    def manifest(self, tag: str | None, digest: str, at: float = 0, **fields: Any) -> Verdict:
        return self.ask("manifest-fetch", at, tag=tag, digest=digest, **fields)

    @property
    def counted(self) -> int:
        return sum(verdict.counted for verdict in self.verdicts)


@pytest.mark.parametrize("status", [200, 203, 206, 301, 302, 303, 307, 308])
def test_c1_an_answer_that_went_well_counts(status: int) -> None:
    assert Client().download(status=status).counted


@pytest.mark.parametrize("status", [304, 400, 401, 403, 404, 410, 500, 502, 503])
def test_c1_others_do_not(status: int) -> None:
    assert Client().download(status=status).rule == "C1"


def test_c2_head_never_counts_and_post_only_where_telemetry_is_posted() -> None:
    client = Client()
    assert client.download(method="HEAD").rule == "C2"
    assert client.head("1", AMD).rule == "C2"
    assert client.download(method="POST").rule == "C2"
    assert client.ask("pixel-fetch", method="HEAD").rule == "C2"
    assert client.ask("telemetry", method="POST").counted
    assert client.ask("telemetry").counted


@pytest.mark.parametrize("suffix", [*COMPANIONS, ".SHA256"])
def test_c3_companions_of_a_file_never_count(suffix: str) -> None:
    client = Client()
    assert client.download(f"/skates-1.0.whl{suffix}").rule == "C3"
    assert client.download("/skates-1.0.whl").counted


def test_c3_indexes_never_count() -> None:
    assert Client().ask("index-fetch", path="/simple/skates/").rule == "C3"


def test_c4_a_range_from_elsewhere_never_counts_and_opens_no_window() -> None:
    client = Client()
    assert client.download(partial=True).rule == "C4"
    assert client.download().counted


def test_c6_the_same_file_again_is_one_download_for_as_long_as_its_first_fetch_says() -> None:
    client = Client()
    first = client.download(at=0)
    again = client.download(at=6)
    last = client.download(at=9.999)
    assert first.counted
    assert [v.rule for v in (again, last)] == ["C6", "C6"]
    assert {v.part_of for v in (again, last)} == {client.facts[0].id}
    assert client.download(at=10).counted, "later fetches do not extend the window"
    assert client.download(at=19.9).part_of == client.facts[3].id


def test_c6_other_files_packages_domains_are_other_downloads() -> None:
    client = Client()
    client.download()
    client.download("/2/skates.tar.gz")
    client.download(package="acme/boots")
    client.download(domain="other.example")
    assert client.counted == 4


def test_c6_can_be_switched_off() -> None:
    client = Client(merge_seconds=0)
    client.download()
    client.download()
    assert client.counted == 2


def test_c6_pixels_telemetry_and_pulls_are_never_merged() -> None:
    client = Client()
    for _ in range(3):
        client.ask("pixel-fetch", path="/a.png")
        client.ask("telemetry", method="POST", path="/t")
        client.manifest("1", AMD)
    assert client.counted == 9


def docker(client: Client, at: float = 0) -> None:
    client.head("1", "sha256:index", at)
    client.manifest(None, "sha256:index", at + 0.1, lists=INDEX)
    client.manifest(None, AMD, at + 0.2)
    client.ask("blob-fetch", at + 0.3)


def podman(client: Client, at: float = 0) -> None:
    client.manifest("1", "sha256:index", at, lists=INDEX)
    client.manifest(None, AMD, at + 0.1)
    client.ask("blob-fetch", at + 0.2)


def helm(client: Client, at: float = 0) -> None:
    client.manifest("1", "sha256:chart", at, artifact="chart")
    client.ask("blob-fetch", at + 0.1)


def docker_single(client: Client, at: float = 0) -> None:
    client.head("1", AMD, at)
    client.manifest(None, AMD, at + 0.1, platform="linux/amd64")


@pytest.mark.parametrize("pull", [docker, podman, helm, docker_single])
def test_c7_a_cold_pull_is_one_and_c8_it_knows_its_tag(pull: Any) -> None:
    client = Client()
    pull(client)
    assert client.counted == 1
    (verdict,) = (v for v in client.verdicts if v.counted)
    assert (verdict.version, verdict.tag) == ("1", "1")
    if pull is not helm:
        assert verdict.platform == "linux/amd64"


@pytest.mark.parametrize(("pull", "expected"), [(podman, 3), (docker, 3), (helm, 3), (docker_single, 3)])
def test_c7_a_client_that_fetches_manifests_again_counts_again(pull: Any, expected: int) -> None:
    client = Client()
    for at in (0, 20, 40):
        pull(client, at)
    assert client.counted == expected


def test_c7_a_check_that_only_asks_head_is_none() -> None:
    client = Client()
    client.head("1", "sha256:index")
    assert client.counted == 0


def test_c7_copying_every_platform_is_one_pull() -> None:
    client = Client()
    client.manifest("1", "sha256:index", 0, lists=INDEX)
    client.manifest(None, ARM, 1)
    client.manifest(None, AMD, 2)
    assert client.counted == 1
    assert client.verdicts[0].platform == "linux/arm64/v8", "the first, if several"
    assert {v.part_of for v in client.verdicts[1:]} == {client.facts[0].id}


def test_c7_fifty_machines_behind_one_address_are_fifty() -> None:
    client = Client()
    for machine in range(50):
        client.manifest("1", "sha256:index", machine / 100, lists=INDEX)
    for machine in range(50):
        assert client.manifest(None, AMD, 1 + machine / 100).part_of == client.facts[machine].id, "oldest first"
    assert client.counted == 50
    assert client.manifest(None, AMD, 2).counted, "all of them have it"
    assert client.manifest(None, ARM, 2).part_of == client.facts[49].id, "all have an image: the latest"


def test_c7_a_nested_index_belongs_to_its_pull_with_what_it_lists() -> None:
    client = Client()
    client.manifest("1", "sha256:outer", 0, lists={"sha256:index": ""})
    client.manifest(None, "sha256:index", 1, lists=INDEX)
    client.manifest(None, AMD, 2)
    assert client.counted == 1
    assert client.verdicts[0].platform == "linux/amd64"


def test_c7_a_pull_is_open_for_ten_minutes() -> None:
    client = Client()
    client.manifest("1", "sha256:index", 0, lists=INDEX)
    assert client.manifest(None, AMD, 599.999).rule == "C7"
    assert client.manifest(None, ARM, 600).counted


def test_c7_pulls_are_of_one_image_on_one_domain() -> None:
    client = Client()
    client.manifest("1", "sha256:index", 0, lists=INDEX)
    assert client.manifest(None, AMD, 1, package="acme/boots").counted
    assert client.manifest(None, AMD, 1, domain="other.example").counted
    assert client.manifest(None, AMD, 1).rule == "C7"


def test_c8_the_last_head_within_ten_minutes_names_the_tag_else_the_digest_does() -> None:
    client = Client()
    client.head("1", AMD, 0)
    client.head("latest", AMD, 1)
    client.head(None, AMD, 2)
    client.head("9", AMD, 2, status=404)
    assert client.manifest(None, AMD, 3).version == "latest"
    assert client.manifest(None, AMD, 600.9).version == "latest"
    bare = client.manifest(None, AMD, 601)
    assert (bare.version, bare.tag) == (AMD, None)
    assert client.manifest("2", AMD, 601).version == "2"


def test_c8_an_attestation_gives_no_platform() -> None:
    client = Client()
    client.manifest("1", "sha256:index", 0, lists={ATT: "unknown/unknown", AMD: "linux/amd64"})
    client.manifest(None, ATT, 1)
    assert client.verdicts[0].platform is None
    client.manifest(None, AMD, 2)
    assert client.verdicts[0].platform == "linux/amd64"
    assert client.counted == 1


@pytest.mark.parametrize("artifact", ["signature", "attestation", "sbom", "application/spdx+json"])
def test_c9_what_accompanies_an_image_is_no_pull(artifact: str) -> None:
    client = Client()
    client.manifest("1", "sha256:index", 0, lists=INDEX)
    assert client.manifest("sha256-x.sig", AMD, 1, artifact=artifact).rule == "C9"
    assert client.manifest(None, AMD, 2).part_of == client.facts[0].id, "and takes nothing from one"


def test_c9_blobs_never_count() -> None:
    assert Client().ask("blob-fetch").rule == "C9"


def test_a_source_that_never_rests_does_not_grow_without_bound() -> None:
    client = Client()
    for n in range(5000):
        client.download(f"/{n}", at=n)
        client.manifest(str(n), f"sha256:{n}", n, package=f"acme/{n}")
        client.head(str(n), f"sha256:{n}", n, package=f"acme/{n}")
    pulls = client.source.pulls
    assert isinstance(pulls, Pulls)
    assert len(client.source.windows or ()) <= 128
    assert len(pulls.heads) + len(pulls.images) <= 2 * 1200 + 512
    assert client.counted == 10_000


def test_a_source_is_over_when_nothing_is_open() -> None:
    client = Client()
    client.download(at=100)
    assert not client.source.over(109 * S)
    assert client.source.over(110 * S)
    client.head("1", AMD, 200)
    assert not client.source.over(799 * S)
    assert client.source.over(800 * S)
