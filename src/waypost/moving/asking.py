"""What two registries say of the same image: asked by HEAD, which registries do not meter, a few at a time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from msgspec import Struct

from waypost.artifacts.container import ContainerRow, ContainerSite
from waypost.artifacts.kind import HostPolicy
from waypost.artifacts.oci import INDEX_TYPES
from waypost.artifacts.reference import ImageName
from waypost.gateway.choice import is_failure
from waypost.gateway.fetch import carry_out
from waypost.moving.compare import Answer, Comparison, compare, references
from waypost.routing.decision import Fetch, Final, Refuse, Reply
from waypost.routing.request import Request
from waypost.stores.store import InUse
from waypost.upstream.health import retry_after
from waypost.upstream.upstreams import Upstreams

AT_ONCE = 8
PAGE = 1000  # tags in one answer, if the registry likes
MOST_PAGES = 1000
# Seconds before a question that failed is asked again. Retry-After, where it is said, comes first.
PAUSES = (1.0, 3.0)
# Who wants us back later than this many seconds leaves us without an answer.
LONGEST_WAIT = 120.0
_ACCEPT = ", ".join(
    (
        *sorted(INDEX_TYPES),
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
# A registry of which this was the last word is not asked again: it would be the same for every tag.
_HOPELESS = frozenset(("UPSTREAM_UNREACHABLE", "UPSTREAM_TIMEOUT", "UPSTREAM_FORBIDDEN", "TOOMANYREQUESTS"))
_NEXT = re.compile(r"<[^>?]*\?([^>]*)>\s*;[^,]*\brel=\"?next\b", re.IGNORECASE)

# (how many questions are answered, of how many)
Progress = Callable[[int, int], None]


class _Tags(Struct):
    tags: list[str] | None = None


class Place:
    """One repository, asked what users of Waypost would be answered if it were the only upstream."""

    def __init__(self, image: ImageName) -> None:
        self.registry = image.registry
        self._path = f"/v2/{image.repository}"
        row = ContainerRow(image.repository, image.registry, image.repository, image.repository)
        self._site = ContainerSite([row], HostPolicy("https://localhost"))

    def question(self, method: str, path: str, query: str | None = None) -> Fetch | Refuse:
        """A Refuse for what nobody can ask for, such as a tag that is none."""
        headers = (("accept", _ACCEPT),) if path.startswith("/manifests/") else ()
        request = Request(method, "localhost", self._path + path, query, headers, scheme="https")
        decision = self._site.decide(request)
        assert isinstance(decision, Fetch | Refuse), decision
        return decision


class Registries:
    """Asks them with patience: a few questions at once, again when one fails, and later when they say so."""

    def __init__(self, upstreams: Upstreams, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._upstreams = upstreams
        self._sleep = sleep
        self._room = asyncio.Semaphore(AT_ONCE)
        self._given_up: dict[str, Final] = {}

    async def ask(self, place: Place, method: str, path: str, query: str | None = None) -> Final:
        question = place.question(method, path, query)
        if isinstance(question, Refuse):
            return question
        for pause in (*PAUSES, None):
            # Whoever waits keeps its room: the others shall not go on asking meanwhile.
            async with self._room:
                if place.registry in self._given_up:
                    return self._given_up[place.registry]
                final, _ = await carry_out(question, self._upstreams)
                if not is_failure(final):
                    return final
                wait = _wait(final)
                if pause is None or final.code == "UPSTREAM_FORBIDDEN" or (wait or 0) > LONGEST_WAIT:
                    break
                await self._sleep(pause if wait is None else wait)
        if isinstance(final, Refuse) and final.code in _HOPELESS:
            self._given_up[place.registry] = final
        return final

    async def manifest(self, place: Place, reference: str) -> tuple[Answer, bool]:
        """(what the reference means there, whether that is an index)."""
        final = await self.ask(place, "HEAD", f"/manifests/{reference}")
        if isinstance(final, Reply) and final.status == 200 and not _header(final, "docker-content-digest"):
            # The specification does not oblige registries to name it; then the bytes do.
            final = await self.ask(place, "GET", f"/manifests/{reference}")
        answer = _answer(final)
        is_index = isinstance(final, Reply) and _header(final, "content-type").partition(";")[0] in INDEX_TYPES
        return answer, is_index

    async def listed(self, place: Place, digest: str) -> Sequence[str] | Answer:
        """What an index lists; or why that is not known. Not a HEAD, but asked only of a tag that moved since."""
        final = await self.ask(place, "GET", f"/manifests/{digest}")
        if isinstance(final, Reply) and final.status == 200:
            return [child for fact in final.facts for child in fact.lists or ()]
        return Answer(why=_answer(final).why or "the index itself cannot be fetched")

    async def tags(self, place: Place) -> tuple[list[str], str]:
        """(all tags that there are, why that is not known)."""
        tags: list[str] = []
        query: str | None = f"n={PAGE}"
        for _ in range(MOST_PAGES):
            final = await self.ask(place, "GET", "/tags/list", query)
            if not isinstance(final, Reply) or final.status != 200:
                return tags, _answer(final).why
            try:
                tags += msgspec.json.decode(final.body, type=_Tags).tags or ()
            except msgspec.MsgspecError:
                return tags, "the list of tags is none"
            query = next((found[1] for link in _headers(final, "link") if (found := _NEXT.search(link))), None)
            if query is None:
                return tags, ""
        return tags, f"the list of tags has more than {MOST_PAGES} pages"


async def inquire(
    registries: Registries, old: ImageName, new: ImageName, in_use: InUse, progress: Progress
) -> Comparison:
    """Compares everything in use and every tag that there is. Asks each registry once for each, and for what
    indexes in use list."""
    before, after = Place(old), Place(new)
    tags, why = await registries.tags(before)
    names = references(in_use.used, tags)
    done, total = 0, 2 * len(names)

    async def ask(place: Place, reference: str) -> tuple[Answer, bool]:
        nonlocal done
        answer = await registries.manifest(place, reference)
        done += 1
        progress(done, total)
        return answer

    answers = await asyncio.gather(*(ask(place, name) for name in names for place in (before, after)))
    of_old = {name: answer for name, (answer, _) in zip(names, answers[::2], strict=True)}
    of_new = {name: answer for name, (answer, _) in zip(names, answers[1::2], strict=True)}
    indexes = {answer.digest for answer, is_index in answers[1::2] if is_index and answer.digest}
    listed = {
        digest: in_use.indexes.get(digest) or await registries.listed(after, digest)
        for digest in dict.fromkeys(of_new[one.reference].digest or "" for one in in_use.used)
        if digest in indexes
    }
    children = list(dict.fromkeys(child for one in listed.values() if not isinstance(one, Answer) for child in one))
    total += len(children)
    of_children = await asyncio.gather(*(ask(after, child) for child in children))
    of_new |= {child: answer for child, (answer, _) in zip(children, of_children, strict=True)}
    # An index may list more than was ever copied: what the old one lacks as well nobody will miss.
    for child in children:
        if of_new[child] == Answer():
            of_old[child], _ = await registries.manifest(before, child)
    rows = compare(in_use.used, tags, of_old, of_new, listed)
    problems = (f"the tags of the old upstream are not known: {why}",) if why else ()
    return Comparison(rows, problems)


def _answer(final: Final) -> Answer:
    if isinstance(final, Reply) and final.status == 200:
        digest = _header(final, "docker-content-digest") or next(
            (fact.digest for fact in final.facts if fact.digest), None
        )
        return Answer(digest) if digest else Answer(why="its registry names no digest")
    if isinstance(final, Refuse):
        return Answer() if final.status == 404 else Answer(why=_sentence(final))
    return Answer(why=f"its registry answers {final.status}")


def _sentence(refusal: Refuse) -> str:
    wait = _wait(refusal)
    return refusal.message.rstrip(".") + (f", for {wait:.0f} s" if wait else "")


def _wait(refusal: Refuse) -> float | None:
    return retry_after(next(iter(_headers(refusal, "retry-after")), None))


def _header(reply: Reply, name: str) -> str:
    return next(iter(_headers(reply, name)), "")


def _headers(final: Reply | Refuse, name: str) -> list[str]:
    return [value for key, value in final.headers if key.lower() == name]
