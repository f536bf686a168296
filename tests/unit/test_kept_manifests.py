"""gateway/manifests.py and gateway/choice.py, against registries on loopback that do as they are told."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import msgspec
import pytest
from aiohttp import web

from waypost.gateway.choice import ask_in_order
from waypost.gateway.manifests import UNKNOWN_SECONDS, Manifests, accepts
from waypost.routing.decision import Fetch, Keep, Listed, Refuse, Reply, UpstreamHead
from waypost.upstream import probe
from waypost.upstream.client import Client, Timeouts
from waypost.upstream.declared import Declared, by_host
from waypost.upstream.folder import Folder
from waypost.upstream.health import Health
from waypost.upstream.manifests import ManifestStore
from waypost.upstream.probe import Prober
from waypost.upstream.upstreams import Upstreams

OCI = "application/vnd.oci.image.manifest.v1+json"
TWO = ("r0.example", "r1.example")
FIRST, SECOND = b'{"schemaVersion": 2, "n": 1}', b'{"schemaVersion": 2, "n": 2}'


def digest(body):
    return "sha256:" + hashlib.sha256(body).hexdigest()


class Registry:
    """One registry: `tags` and `digests` map to bodies; `status` answers everything if set."""

    def __init__(self):
        self.tags = {"1.0": FIRST}
        self.asked = []
        self.status = None
        self.headers = {}
        self.delay = 0.0

    async def serve(self, request):
        reference = request.path.rpartition("/")[2]
        self.asked.append(f"{request.method} {reference}")
        await asyncio.sleep(self.delay)
        bodies = self.tags | {digest(body): body for body in self.tags.values()}
        if self.status or reference not in bodies:
            return web.Response(status=self.status or 404, headers=self.headers)
        body = bodies[reference]
        headers = {"Content-Type": OCI, "Docker-Content-Digest": digest(body)}
        return web.Response(body=b"" if request.method == "HEAD" else body, headers=headers)


def then(head: UpstreamHead):
    """What a container site does, in small."""
    if head.status == 200:
        names = {"content-type", "docker-content-digest"}
        return Reply(200, tuple((name, value) for name, value in head.headers if name in names), head.body)
    return Refuse(head.status, "X", "x", tuple(pair for pair in head.headers if pair[0] == "retry-after"))


def question(reference="1.0", method="GET", hosts=("r0.example",), asked=None, keep=True):
    def fetch(host, **more):
        return Fetch(
            url=f"https://{host}/v2/x/manifests/{reference}", then=then, method=method,
            buffer=1 << 20 if method == "GET" else 0, alike=":" in reference, **more,
        )  # fmt: skip

    kept = Keep(asked or f"d.example/x/{reference}", f"{hosts[0]}/x", reference, OCI) if keep else None
    return fetch(hosts[0], keep=kept, others=tuple(fetch(host) for host in hosts[1:]))


class House:
    def __init__(self, folder, registries, client):
        self.now = 1_000_000.0
        self.registries = registries
        self._disk = ThreadPoolExecutor(2)
        self._folder = folder
        self._upstreams = Upstreams(client)
        self.health = Health(lambda: self.now, lambda: 0.0)
        self.prober = Prober(client, self.health)
        self.new_worker()

    def new_worker(self):
        store = ManifestStore(Folder(self._folder, 10**6))
        self.manifests = Manifests(store, self._upstreams, self.health, self._disk, 60.0, lambda: self.now)
        return self.manifests

    async def ask(self, *arguments, **more):
        fetch = question(*arguments, **more)
        if fetch.keep is None:
            final, _ = await ask_in_order(fetch, self._upstreams, self.health)
        else:
            final, _ = await self.manifests.carry_out(fetch, fetch.keep)
        return final


def scenario(tmp_path, function, registries=1):
    @asynccontextmanager
    async def house():
        runners, declared, servers = [], [], [Registry() for _ in range(registries)]
        for number, registry in enumerate(servers):
            app = web.Application()
            app.router.add_route("*", "/{rest:.*}", registry.serve)
            runner = web.AppRunner(app)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            port = runner.addresses[0][1]
            runners.append(runner)
            declared.append(Declared(host=f"r{number}.example", connect=f"http://127.0.0.1:{port}"))
        client = Client(by_host(declared), Timeouts(connect=1, head=1, read=1))
        try:
            yield House(tmp_path, servers, client)
        finally:
            await client.close()
            for runner in runners:
                await runner.cleanup()

    async def run():
        async with house() as one:
            await function(one)

    asyncio.run(run())


def header(reply, name):
    return {key.lower(): value for key, value in reply.headers}.get(name)


def test_a_tag_is_asked_for_once_then_confirmed_by_head(tmp_path):
    async def run(house):
        (registry,) = house.registries
        assert (await house.ask()).body == FIRST
        assert (await house.ask()).body == FIRST
        assert registry.asked == ["GET 1.0"]
        house.now += 59
        again = await house.ask()
        assert (header(again, "age"), header(again, "cache-status")) == ("59", "waypost; hit")
        house.now += 2
        assert (await house.ask()).body == FIRST
        assert registry.asked == ["GET 1.0", "HEAD 1.0"]
        house.now += 59
        await house.ask()
        assert registry.asked == ["GET 1.0", "HEAD 1.0"]

    scenario(tmp_path, run)


@pytest.mark.parametrize(("reference", "read"), [("1.0", "tag"), (digest(FIRST), "manifest")])
def test_whoever_a_slow_disk_held_up_sees_what_others_learned_meanwhile(tmp_path, reference, read):
    async def run(house):
        (registry,) = house.registries
        store = house.manifests._store
        quick, released = getattr(store, read), threading.Event()

        def slow(*arguments):
            setattr(store, read, quick)
            found = quick(*arguments)
            released.wait(10)
            return found

        setattr(store, read, slow)
        late = asyncio.create_task(house.ask(reference))
        while getattr(store, read) is slow:
            await asyncio.sleep(0.001)
        try:
            assert (await house.ask(reference)).body == FIRST
        finally:
            released.set()
        answer = await late
        assert (answer.body, header(answer, "cache-status")) == (FIRST, "waypost; hit")
        assert registry.asked == [f"GET {reference}"]

    scenario(tmp_path, run)


def test_a_tag_that_moved_is_fetched(tmp_path):
    async def run(house):
        (registry,) = house.registries
        await house.ask()
        registry.tags["1.0"] = SECOND
        assert (await house.ask()).body == FIRST  # within its time
        house.now += 61
        assert (await house.ask()).body == SECOND
        assert registry.asked == ["GET 1.0", "HEAD 1.0", "GET 1.0"]

    scenario(tmp_path, run)


def test_a_digest_is_kept_for_ever_and_by_all_workers(tmp_path):
    async def run(house):
        (registry,) = house.registries
        await house.ask(digest(FIRST))
        house.now += 10**7
        house.new_worker()
        reply = await house.ask(digest(FIRST))
        assert (reply.body, header(reply, "age")) == (FIRST, None)
        assert (await house.ask(digest(FIRST), "HEAD")).body == b""
        assert len(registry.asked) == 1

    scenario(tmp_path, run)


def test_a_client_that_does_not_take_the_kept_type_is_answered_by_the_registry(tmp_path):
    async def run(house):
        (registry,) = house.registries
        await house.ask(digest(FIRST))
        fetch = question(digest(FIRST))
        other = Keep(fetch.keep.asked, fetch.keep.repository, fetch.keep.reference, "text/plain")
        await house.manifests.carry_out(fetch, other)
        assert len(registry.asked) == 2

    scenario(tmp_path, run)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_old_tag_is_served_while_its_registry_fails_and_says_so(tmp_path, status):
    async def run(house):
        (registry,) = house.registries
        await house.ask()
        registry.status = status
        house.now += 4000
        house.new_worker()  # restarted meanwhile
        reply = await house.ask()
        assert (reply.body, header(reply, "age")) == (FIRST, "4000")
        assert "no-upstream-answers" in header(reply, "cache-status")
        head = await house.ask(method="HEAD")
        assert header(head, "docker-content-digest") == digest(FIRST)
        assert house.manifests.stale == 2
        assert "GET 1.0" not in registry.asked[1:]  # what fails is not asked for more
        registry.status = None
        registry.tags["1.0"] = SECOND
        house.now += 400
        await house.prober.look()
        assert (await house.ask()).body == SECOND

    scenario(tmp_path, run)


def test_while_every_upstream_is_known_to_be_down_no_client_waits_for_them(tmp_path):
    async def run(house):
        await house.ask(hosts=TWO)
        house.now += 61
        for registry in house.registries:
            registry.status = 503
        for _ in range(2):
            await house.ask(hosts=TWO)
        for registry in house.registries:
            registry.asked.clear()
        house.now += 400  # all pauses are over: the trial is not the client's
        reply = await house.ask(hosts=TWO)
        assert (reply.body, header(reply, "age")) == (FIRST, "461")
        assert [registry.asked for registry in house.registries] == [[], []]
        await house.prober.look()
        assert [registry.asked for registry in house.registries] == [["GET "], ["GET "]]
        house.registries[1].status = None
        house.now += 400
        await house.prober.look()
        assert header(await house.ask(hosts=TWO), "age") == "0"  # the second one confirmed it

    scenario(tmp_path, run, registries=2)


def test_a_registry_that_is_down_is_asked_first_again_once_a_probe_went_well(tmp_path):
    async def run(house):
        first, second = house.registries
        first.status = 502
        for _ in range(3):
            assert (await house.ask(keep=False, hosts=TWO)).status == 200
        assert (first.asked, second.asked) == (["GET 1.0"] * 2, ["GET 1.0"] * 3)
        for status in (503, 429, None):
            first.status = status
            house.now += 1000
            assert (await house.ask(keep=False, hosts=TWO)).status == 200  # of the second one alone
            await house.prober.look()
            await house.prober.look()  # not due again
        assert first.asked == ["GET 1.0"] * 2 + ["GET "] * 3
        assert house.prober.asked == 3
        await house.ask(keep=False, hosts=TWO)
        assert first.asked[-1] == "GET 1.0"

    scenario(tmp_path, run, registries=2)


def test_a_probe_does_not_wait_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "PATIENCE", 0.05)

    async def run(house):
        (registry,) = house.registries
        registry.status = 503
        for _ in range(2):
            await house.ask(keep=False)
        registry.delay = 0.5
        registry.status = None
        house.now += 10
        await house.prober.look()
        assert [one.why for one in house.health.down()] == ["no answer in time."]

    scenario(tmp_path, run)


def test_probes_go_where_only_the_guard_lets_them(tmp_path):
    async def run(house):
        for _ in range(2):
            house.health.failed("127.0.0.1:9", "down", None, "https://127.0.0.1:9/v2/")
        house.now += 10
        await house.prober.look()
        ((host, _, why),) = house.health.down()
        assert host == "127.0.0.1:9"
        assert "address" in why

    scenario(tmp_path, run)


def test_in_an_outage_what_another_client_was_given_will_do_if_this_one_takes_it(tmp_path):
    async def run(house):
        (registry,) = house.registries
        await house.ask()
        registry.status = 500
        for accept, status in ((f"{OCI}, text/plain", 200), ("", 200), ("text/plain", 500)):
            fetch = question()
            final, _ = await house.manifests.carry_out(fetch, msgspec.structs.replace(fetch.keep, accept=accept))
            assert final.status == status

    scenario(tmp_path, run)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_is_gone_or_private_now_is_not_served_from_what_was_kept(tmp_path, status):
    async def run(house):
        (registry,) = house.registries
        await house.ask()
        registry.status = status
        house.now += 61
        assert (await house.ask()).status == status

    scenario(tmp_path, run)


def test_a_failure_with_nothing_kept_is_passed_on_and_not_kept(tmp_path):
    async def run(house):
        (registry,) = house.registries
        registry.status = 503
        assert (await house.ask()).status == 503
        registry.status = None
        house.now += 10
        assert (await house.ask()).body == FIRST

    scenario(tmp_path, run)


def test_unknown_is_remembered_for_ten_seconds(tmp_path):
    async def run(house):
        (registry,) = house.registries
        for _ in range(3):
            assert (await house.ask("2.0")).status == 404
        assert registry.asked == ["GET 2.0"]
        registry.tags["2.0"] = SECOND
        house.now += UNKNOWN_SECONDS
        assert (await house.ask("2.0")).body == SECOND

    scenario(tmp_path, run)


@pytest.mark.parametrize("reference", ["1.0", digest(FIRST)])
def test_all_who_ask_at_once_cause_one_question(tmp_path, reference):
    async def run(house):
        (registry,) = house.registries
        registry.delay = 0.1
        replies = await asyncio.gather(*(house.ask(reference) for _ in range(500)))
        assert {reply.body for reply in replies} == {FIRST}
        assert registry.asked == [f"GET {reference}"]

    scenario(tmp_path, run)


def test_a_client_that_goes_away_does_not_end_the_question_for_others(tmp_path):
    async def run(house):
        (registry,) = house.registries
        registry.delay = 0.1
        first, second = asyncio.create_task(house.ask()), asyncio.create_task(house.ask())
        await asyncio.sleep(0.02)
        first.cancel()
        assert (await second).body == FIRST
        assert registry.asked == ["GET 1.0"]

    scenario(tmp_path, run)


def test_at_once_answers_only_what_needs_nobody(tmp_path):
    async def run(house):
        manifests = house.manifests

        def at_once(fetch):
            return manifests.at_once(fetch, fetch.keep)

        assert at_once(question()) is None
        await house.ask()
        await house.ask()
        assert at_once(question()).body == FIRST
        house.now += 61
        assert at_once(question()) is None
        await house.ask(digest(FIRST))
        assert at_once(question(digest(FIRST))).body == FIRST
        manifests.forget()
        assert at_once(question(digest(FIRST))) is None

    scenario(tmp_path, run)


def test_a_login_that_has_used_up_its_quota_is_no_outage(tmp_path):
    async def run(house):
        house.registries[0].status = 429
        fetch = msgspec.structs.replace(question(keep=False), authorization="Bearer theirs")
        for _ in range(3):
            final, _ = await ask_in_order(fetch, house._upstreams, house.health)
            assert final.status == 429
        assert house.health.is_up("r0.example")
        house.registries[0].status = 500
        for _ in range(3):
            await ask_in_order(fetch, house._upstreams, house.health)
        assert not house.health.is_up("r0.example")

    scenario(tmp_path, run)


def test_the_second_upstream_serves_while_the_first_fails_and_the_first_is_left_alone(tmp_path):
    async def run(house):
        first, second = house.registries
        first.status = 500
        for number in range(6):
            house.now += 0.1
            assert (await house.ask(hosts=TWO, keep=False, asked=str(number))).body == FIRST
        assert len(first.asked) == 2
        assert len(second.asked) == 6
        first.status = None
        house.now += 10
        await house.prober.look()
        assert first.asked.pop() == "GET "
        await house.ask(hosts=TWO, keep=False)
        assert (len(first.asked), len(second.asked)) == (3, 6)

    scenario(tmp_path, run, registries=2)


def test_a_tag_that_the_first_does_not_know_is_unknown_but_a_digest_is_looked_for(tmp_path):
    async def run(house):
        first, second = house.registries
        second.tags["2.0"] = SECOND
        assert (await house.ask("2.0", hosts=TWO)).status == 404
        assert second.asked == []
        assert (await house.ask(digest(SECOND), hosts=TWO)).body == SECOND
        assert (await house.ask("sha256:" + 64 * "0", hosts=TWO)).status == 404
        assert len(first.asked) == 3

    scenario(tmp_path, run, registries=2)


def test_if_one_lacks_it_and_one_fails_that_is_a_failure(tmp_path):
    async def run(house):
        house.registries[1].status = 500
        assert (await house.ask(digest(SECOND), hosts=TWO)).status == 500

    scenario(tmp_path, run, registries=2)


def test_with_all_upstreams_open_they_are_still_tried(tmp_path):
    async def run(house):
        for registry in house.registries:
            registry.status = 500
        for _ in range(4):
            assert (await house.ask(hosts=TWO)).status == 500
        house.registries[1].status = None
        assert (await house.ask(hosts=TWO)).body == FIRST

    scenario(tmp_path, run, registries=2)


def test_retry_after_is_honoured(tmp_path):
    async def run(house):
        first, _ = house.registries
        first.status, first.headers = 429, {"Retry-After": "100"}
        for _ in range(3):
            assert (await house.ask(hosts=TWO, keep=False)).body == FIRST
        assert len(first.asked) == 1
        first.status = None
        house.now += 99
        await house.prober.look()
        assert len(first.asked) == 1
        house.now += 1
        await house.prober.look()
        await house.ask(hosts=TWO, keep=False)
        assert first.asked[1:] == ["GET ", "GET 1.0"]

    scenario(tmp_path, run, registries=2)


@pytest.mark.parametrize(
    ("accept", "media_type", "answer"),
    [
        ("", OCI, True),
        (OCI, OCI, True),
        (f"text/plain, {OCI};q=0.5", OCI + "; charset=utf-8", True),
        ("*/*", OCI, True),
        ("application/*", OCI, True),
        ("text/plain", OCI, False),
    ],
)
def test_accepts(accept, media_type, answer):
    assert accepts(accept, media_type) is answer


def blob_labels(body):
    return {digest(body): f"a blob of {len(body)} bytes"}


def blob(reference, hosts):
    """A blob whose answer is what its manifest said of it."""
    fetch = question(reference, hosts=hosts, keep=False)
    told = {"then": lambda head: Reply(200, (), repr(head.label).encode()) if head.status == 200 else then(head)}
    others = tuple(msgspec.structs.replace(one, **told) for one in fetch.others)
    return msgspec.structs.replace(fetch, **told, others=others)


def test_what_a_manifest_says_of_a_blob_is_told_by_every_worker(tmp_path):
    async def run(house):
        first, second = house.registries
        fetch = question(hosts=TWO)
        listed = Listed("r0.example/x", digest(FIRST))
        before, _ = await house.manifests.with_label(blob("1.0", TWO), listed)
        assert before.body == b"None"
        keep = msgspec.structs.replace(fetch.keep, labels=blob_labels)
        await house.manifests.carry_out(msgspec.structs.replace(fetch, keep=keep), keep)
        for manifests in (house.manifests, house.new_worker()):
            after, _ = await manifests.with_label(blob("1.0", TWO), listed)
            assert after.body == b"'a blob of %d bytes'" % len(FIRST)
        # Whichever upstream has it.
        first.status = 503
        after, _ = await house.manifests.with_label(blob("1.0", TWO), listed)
        assert b"a blob of" in after.body
        assert "GET 1.0" in second.asked

    scenario(tmp_path, run, registries=2)


def test_labels_are_made_anew_of_a_kept_manifest(tmp_path):
    async def run(house):
        fetch = question()
        keep = msgspec.structs.replace(fetch.keep, labels=blob_labels)
        for file in [*tmp_path.rglob("*.label")]:
            file.unlink()
        await house.manifests.carry_out(fetch, fetch.keep)  # whoever asked first wanted none
        assert not [*tmp_path.rglob("*.label")]
        house.new_worker()
        await house.manifests.carry_out(msgspec.structs.replace(fetch, keep=keep), keep)
        assert len([*tmp_path.rglob("*.label")]) == 1
        assert house.registries[0].asked == ["GET 1.0"]

    scenario(tmp_path, run)
