"""gateway/pages.py: indexes that are kept, against upstreams on loopback that do as they are told."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
from aiohttp import web

from waypost.gateway import fetch as fetching
from waypost.gateway.pages import Pages
from waypost.routing.decision import Fact, Fetch, Page, Redirect, Refuse, Reply
from waypost.upstream.client import Client, Timeouts
from waypost.upstream.declared import Declared, by_host
from waypost.upstream.folder import Folder
from waypost.upstream.health import Health
from waypost.upstream.pages import KeptPage, PageStore
from waypost.upstream.upstreams import Upstreams

FACT = Fact(kind="index-fetch", package="skates")


class Upstream:
    def __init__(self):
        self.body = b"one"
        self.etag = '"v1"'
        self.status = None
        self.asked = []
        self.delay = 0.0
        self.moved = False

    async def serve(self, request):
        self.asked.append((request.path, request.headers.get("If-None-Match")))
        await asyncio.sleep(self.delay)
        if self.status:
            return web.Response(status=self.status)
        if self.moved and request.path == "/simple/skates/":
            return web.Response(status=302, headers={"Location": "/elsewhere/"})
        if self.etag and request.headers.get("If-None-Match") == self.etag:
            return web.Response(status=304)
        return web.Response(body=self.body, headers={"ETag": self.etag} if self.etag else {})


def then(url, threads=None):
    def decide(head):
        if threads is not None:
            threads.append(threading.current_thread())
        if head.status == 302:
            return question(url.replace("/simple/skates/", "/elsewhere/"))
        if head.status == 200:
            return Reply(200, (("Content-Type", "text/plain"),), b"made of " + head.body)
        return Refuse(404 if head.status == 404 else 502, "X", "x")

    return decide


def question(url, **more):
    return Fetch(url=url, then=then(url, more.pop("threads", None)), buffer=1 << 22, **more)


class House:
    def __init__(self, folder, upstreams, client):
        self.now = 1_000_000.0
        self.upstreams = upstreams
        self._client = Upstreams(client)
        self.health = Health(lambda: self.now)
        self._folder = folder
        self._disk = ThreadPoolExecutor(2)
        self.new_worker()

    def new_worker(self, memory=1 << 20):
        store = PageStore(Folder(self._folder, 10**7), memory)
        self.pages = Pages(store, self._client, self.health, self._disk, lambda: self.now)

    async def ask(self, asked="skates", hosts=1, failure=0, **more):
        page = Page(asked, (FACT,), 60.0, failure)
        urls = [f"https://u{number}.example/simple/skates/" for number in range(hosts)]
        first, *others = (question(url, **more) for url in urls)
        fetch = msgspec.structs.replace(first, keep=page, others=tuple(others))
        final, _ = await self.pages.carry_out(fetch, page)
        return final


def scenario(tmp_path, function, upstreams=1):
    async def main():
        runners, declared, servers = [], [], [Upstream() for _ in range(upstreams)]
        for number, server in enumerate(servers):
            app = web.Application()
            app.router.add_route("*", "/{rest:.*}", server.serve)
            runner = web.AppRunner(app)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            runners.append(runner)
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            declared.append(Declared(host=f"u{number}.example", connect=url))
        client = Client(by_host(declared), Timeouts(connect=1, head=1, read=1))
        try:
            await function(House(tmp_path, servers, client), *servers)
        finally:
            await client.close()
            for runner in runners:
                await runner.cleanup()

    asyncio.run(main())


def status(reply):
    return dict(reply.headers)["Cache-Status"]


def test_a_page_is_asked_for_once_and_believed_for_a_while(tmp_path):
    async def run(house, upstream):
        first = await house.ask()
        assert (first.status, first.body, first.facts) == (200, b"made of one", (FACT,))
        upstream.body = b"two"
        house.now += 59
        again = await house.ask()
        assert (again.body, again.facts) == (b"made of one", (FACT,))
        assert dict(again.headers)["Age"] == "59"
        assert house.pages.at_once(Page("skates")).body == b"made of one"
        assert house.pages.at_once(Page("another")) is None
        assert len(upstream.asked) == 1
        house.now += 2
        assert house.pages.at_once(Page("skates")) is None

    scenario(tmp_path, run)


def test_an_old_page_is_confirmed_or_made_anew(tmp_path):
    async def run(house, upstream):
        etag = dict((await house.ask()).headers)["ETag"]
        house.now += 61
        confirmed = await house.ask()
        assert (confirmed.body, dict(confirmed.headers)["ETag"]) == (b"made of one", etag)
        assert dict(confirmed.headers)["Age"] == "0"
        upstream.body, upstream.etag = b"two", '"v2"'
        house.now += 61
        changed = await house.ask()
        assert changed.body == b"made of two"
        assert dict(changed.headers)["ETag"] != etag
        assert [condition for _, condition in upstream.asked] == [None, '"v1"', '"v1"']

    scenario(tmp_path, run)


def test_conditions_go_along_where_an_upstream_redirects(tmp_path):
    async def run(house, upstream):
        upstream.moved = True
        assert (await house.ask()).body == b"made of one"
        house.now += 61
        assert (await house.ask()).body == b"made of one"
        assert upstream.asked[-1] == ("/elsewhere/", '"v1"')

    scenario(tmp_path, run)


def test_another_worker_and_another_life_find_it_on_disk(tmp_path):
    async def run(house, upstream):
        await house.ask()
        house.new_worker()
        assert (await house.ask()).body == b"made of one"
        assert len(upstream.asked) == 1
        for path in tmp_path.rglob("*.page"):
            path.write_bytes(path.read_bytes()[:-1] + b"X")
        house.new_worker()
        assert (await house.ask()).body == b"made of one"
        assert len(upstream.asked) == 2

    scenario(tmp_path, run)


def test_while_upstreams_are_down_the_last_page_is_given_out(tmp_path):
    async def run(house, upstream):
        await house.ask()
        upstream.status = 500
        house.now += 3600
        old = await house.ask()
        assert (old.status, old.body) == (200, b"made of one")
        assert dict(old.headers)["Age"] == "3600"
        assert "no-upstream-answers" in status(old)
        refused = await house.ask("never seen")
        assert refused.status == 502
        assert (await house.ask("never seen", failure=503)).status == 503
        asked = len(upstream.asked)
        await house.ask()
        assert len(upstream.asked) == asked  # known to be down
        assert house.pages.stale == 2

    scenario(tmp_path, run)


def test_what_an_upstream_does_not_have_is_gone(tmp_path):
    async def run(house, upstream):
        await house.ask()
        upstream.status = 404
        house.now += 61
        assert (await house.ask()).status == 404

    scenario(tmp_path, run)


def test_another_upstream_is_not_asked_for_the_firsts_etag(tmp_path):
    async def run(house, first, second):
        second.body = b"mirrored"
        await house.ask(hosts=2)
        first.status = 500
        house.now += 61
        assert (await house.ask(hosts=2)).body == b"made of mirrored"
        assert second.asked == [("/simple/skates/", None)]

    scenario(tmp_path, run, 2)


def test_all_who_ask_at_once_cause_one_question(tmp_path):
    async def run(house, upstream):
        upstream.delay = 0.05
        tasks = [asyncio.create_task(house.ask()) for _ in range(50)]
        await asyncio.sleep(0.02)
        tasks[0].cancel()
        assert {reply.body for reply in await asyncio.gather(*tasks[1:])} == {b"made of one"}
        assert len(upstream.asked) == 1

    scenario(tmp_path, run)


def test_much_is_read_in_a_thread(tmp_path):
    async def run(house, upstream):
        threads = []
        await house.ask("small", threads=threads)
        upstream.body = bytes(fetching.MUCH_BYTES)
        await house.ask("large", threads=threads)
        assert threads[0] is threading.main_thread()
        assert threads[1] is not threading.main_thread()

    scenario(tmp_path, run)


def test_memory_is_bounded(tmp_path):
    async def run(house, upstream):
        house.new_worker(memory=2500)
        upstream.body, upstream.etag = bytes(1000), None
        for number in range(5):
            await house.ask(str(number))
        held = [house.pages.at_once(Page(str(number))) is not None for number in range(5)]
        assert held == [False, False, False, True, True]

    scenario(tmp_path, run)


def chosen(house, form, choose, asked="skates", remembered=True):
    page = Page(asked, (FACT,), 60.0, 0, choose, form if remembered else "")
    fetch = msgspec.structs.replace(question("https://u0.example/simple/skates/"), keep=page)
    return house.pages.carry_out(fetch, page)


def test_several_forms_are_made_of_one_page_and_remembered(tmp_path):
    async def run(house, upstream):
        made = []

        def upper(kept):
            made.append("upper")
            return Reply(200, (("Content-Type", "x"),), kept.body.upper())

        def where(kept):
            made.append("where")
            return Redirect("https://files.example/one") if b"one" in kept.body else Refuse(404, "X", "x")

        for _ in range(2):
            reply, _ = await chosen(house, "upper", upper)
            assert (reply.body, reply.facts, dict(reply.headers)["Content-Type"]) == (b"MADE OF ONE", (FACT,), "x")
            redirect, _ = await chosen(house, "where", where)
            assert redirect.location == "https://files.example/one"
        assert made == ["upper", "where"]
        assert dict(reply.headers)["ETag"] != dict((await house.ask()).headers)["ETag"]
        await chosen(house, "", upper)
        assert made == ["upper", "where", "upper"]
        upstream.body, upstream.etag = b"two", '"v2"'
        house.now += 61
        assert (await chosen(house, "where", where))[0].status == 404
        house.pages.forget()
        await chosen(house, "where", where)
        assert made == ["upper", "where", "upper", "where", "where"]
        assert len(upstream.asked) == 2

    scenario(tmp_path, run)


def test_much_is_chosen_from_in_a_thread(tmp_path):
    async def run(house, upstream):
        upstream.body = bytes(fetching.MUCH_BYTES)
        threads = []

        def choose(kept):
            threads.append(threading.current_thread())
            return Reply(200, (), b"x")

        await chosen(house, "x", choose)
        page = Page("skates", (), 60.0, 0, choose, "y")
        assert house.pages.at_once(page) is None
        assert house.pages.at_once(msgspec.structs.replace(page, form="x")).body == b"x"
        assert threads[0] is not threading.main_thread()

    scenario(tmp_path, run)


def test_an_index_sends_nobody_into_a_private_network(tmp_path):
    async def run(house, upstream):
        house._client.client.declared = by_host(
            [msgspec.structs.replace(one, host="other.example") for one in house._client.client.declared.values()]
        )
        await house.pages._keep(
            KeptPage(asked="skates", headers=(), digest="", at=house.now, source="https://u0.example/", body=b"")
        )
        page = Page("skates", choose=lambda kept: Redirect("http://192.168.1.1/x"))
        refused = house.pages.at_once(page)
        assert (refused.status, refused.code) == (502, "UPSTREAM_FORBIDDEN")
        # One that the operator declares may.
        house._client.client.declared = by_host([Declared(host="u0.example", connect="http://127.0.0.1:1")])
        assert house.pages.at_once(page).location == "http://192.168.1.1/x"

    scenario(tmp_path, run)


def test_nor_does_what_stands_in_for_its_files(tmp_path):
    async def run(house, upstream):
        kept = KeptPage(asked="skates", headers=(), digest="", at=house.now, source="https://u0.example/", body=b"")
        await house.pages._keep(kept)
        others = (Redirect("http://192.168.1.1/x"),)
        page = Page("skates", choose=lambda kept: Redirect("https://files.example/x", others=others))
        assert house.pages.at_once(page).location == "https://files.example/x"
        # Another declared upstream may stand in for one that is not.
        house._client.client.declared = by_host([Declared(host="192.168.1.1", connect="http://192.168.1.1")])
        assert house.pages.at_once(page).location == "https://files.example/x"
        house._client.client.declared = {}
        assert house.pages.at_once(page).code == "UPSTREAM_FORBIDDEN"

    scenario(tmp_path, run)


def finding(word):
    def choose(kept):
        return Redirect(f"https://files.example/{word}") if word.encode() in kept.body else Refuse(404, "X", "x")

    return choose


def test_what_a_page_lacks_may_be_in_a_newer_one(tmp_path):
    async def run(house, upstream):
        assert (await chosen(house, "", finding("one")))[0].status == 307
        # Just asked: whatever clients want, the upstream is left alone.
        house.now += 1
        assert (await chosen(house, "", finding("two")))[0].status == 404
        assert len(upstream.asked) == 1
        # Later it is asked, once for so long.
        upstream.body, upstream.etag = b"two", '"v2"'
        house.now += 2
        assert house.pages.at_once(Page("skates", choose=finding("two"))) is None
        assert (await chosen(house, "", finding("two")))[0].location == "https://files.example/two"
        assert (await chosen(house, "", finding("three")))[0].status == 404
        assert len(upstream.asked) == 2
        # Another worker has given out a newer page, which is on the disk.
        first = house.pages
        house.new_worker()
        upstream.body, upstream.etag = b"three", '"v3"'
        house.now += 30
        await chosen(house, "", finding("three"))
        house.pages = first
        assert (await chosen(house, "", finding("three")))[0].location == "https://files.example/three"
        assert len(upstream.asked) == 3

    scenario(tmp_path, run)


def test_what_a_page_lacks_is_missing_while_nobody_can_say_more(tmp_path):
    async def run(house, upstream):
        await chosen(house, "", finding("one"))
        upstream.status = 500
        house.now += 3
        assert (await chosen(house, "", finding("two")))[0].status == 404
        assert (await chosen(house, "", finding("one")))[0].status == 307

    scenario(tmp_path, run)


def test_a_file_of_an_index_may_pass_through(tmp_path):
    async def run(house, upstream):
        def choose(kept):
            return Fetch(url="https://u0.example/file", then=lambda head: Reply(200, (), b"file"))

        for _ in range(2):
            assert house.pages.at_once(Page("skates", choose=choose)) is None
            assert (await chosen(house, "", choose))[0].body == b"file"
        assert [path for path, _ in upstream.asked] == ["/simple/skates/", "/file", "/file"]

    scenario(tmp_path, run)


def test_what_is_quickly_chosen_needs_no_thread(tmp_path):
    async def run(house, upstream):
        upstream.body = bytes(fetching.MUCH_BYTES)
        page = Page("skates", choose=lambda kept: Redirect("https://files.example/x"), quick=True)
        await chosen(house, "", page.choose)
        assert house.pages.at_once(page).location == "https://files.example/x"
        assert house.pages.at_once(msgspec.structs.replace(page, quick=False)) is None

    scenario(tmp_path, run)


def test_a_page_beyond_all_memory_leaves_the_others_there(tmp_path):
    async def run(house, upstream):
        house.new_worker(memory=2500)
        await house.ask("small")
        upstream.body, upstream.etag = bytes(3000), None
        assert len((await house.ask("large")).body) > 3000
        assert house.pages.at_once(Page("small")) is not None
        assert house.pages.at_once(Page("large")) is None
        assert len((await house.ask("large")).body) > 3000
        assert len(upstream.asked) == 2

    scenario(tmp_path, run)


def test_that_there_is_none_is_believed_for_some_seconds(tmp_path):
    async def run(house, upstream):
        upstream.status = 404
        assert (await house.ask()).status == 404
        assert house.pages.at_once(Page("skates")).status == 404
        assert house.pages.at_once(Page("another")) is None
        upstream.status = None
        house.now += 9
        assert house.pages.at_once(Page("skates")).status == 404
        house.now += 2
        assert house.pages.at_once(Page("skates")) is None
        assert (await house.ask()).status == 200
        assert len(upstream.asked) == 2

    scenario(tmp_path, run)


def test_a_failure_is_not_believed(tmp_path):
    async def run(house, upstream):
        upstream.status = 500
        assert (await house.ask()).status == 502
        assert house.pages.at_once(Page("skates")) is None

    scenario(tmp_path, run)


def test_another_configuration_may_know_more(tmp_path):
    async def run(house, upstream):
        upstream.status = 404
        await house.ask()
        house.pages.forget()
        assert house.pages.at_once(Page("skates")) is None

    scenario(tmp_path, run)
