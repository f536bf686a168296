"""Rules C7 and C8: which manifest fetches are one pull, of which tag, for which platform.

Facts of one source come in order of (time, id). A pull is opened by a fetch that names a tag, or a digest which no
open pull lists and still lacks; later fetches of what its index lists belong to it. Two lists per image keep this
cheap where thousands of machines share an address: pulls without any image yet, where the oldest is served first,
and pulls that have one and lack more, where the latest is. A pull that lacks nothing is in neither.
"""

from __future__ import annotations

from bisect import insort

from waypost.events.event import Event
from waypost.stores.store import Verdict

OPEN_US = 10 * 60 * 1_000_000
HEAD_US = 10 * 60 * 1_000_000

# BuildKit lists its attestations as manifests of this platform: they are fetched, and are no image (C9).
NO_PLATFORM = "unknown/unknown"

# A source that never rests is cleared of what is over when it holds this many HEADs and images, then twice the rest.
_ROOM = 256


class Pull:
    """An open pull. `verdict` is its opener's and gets the platform when the first image is taken."""

    __slots__ = ("id", "lacks", "seen", "served", "time", "verdict")

    def __init__(self, opener: Event, verdict: Verdict) -> None:
        self.time = opener.time
        self.id = opener.id
        self.verdict = verdict
        self.lacks: dict[str, str] = dict(opener.lists or {})
        self.seen = set(self.lacks)
        self.served = opener.lists is None

    def __lt__(self, other: Pull) -> bool:
        return (self.time, self.id) < (other.time, other.id)

    def take(self, fact: Event) -> bool:
        """Take one of the manifests that it lacks. True if that is the first image."""
        assert fact.digest is not None
        platform = self.lacks.pop(fact.digest)
        if fact.lists is not None:
            for digest, child in fact.lists.items():
                if digest not in self.seen:
                    self.seen.add(digest)
                    self.lacks[digest] = child
            return False
        if self.served or platform == NO_PLATFORM:
            return False
        self.served = True
        self.verdict.platform = platform or fact.platform or self.verdict.platform
        return True


class Image:
    """The open pulls of one image by one source, each list in the order of opening."""

    __slots__ = ("bare", "served")

    def __init__(self) -> None:
        self.bare: list[Pull] = []
        self.served: list[Pull] = []

    def expire(self, now_us: int) -> None:
        for pulls in (self.bare, self.served):
            gone = 0
            while gone < len(pulls) and pulls[gone].time <= now_us - OPEN_US:
                gone += 1
            del pulls[:gone]

    def find(self, digest: str) -> Pull | None:
        for pull in self.bare:
            if digest in pull.lacks:
                return pull
        for pull in reversed(self.served):
            if digest in pull.lacks:
                return pull
        return None

    def place(self, pull: Pull) -> None:
        if pull.lacks:
            insort(self.served if pull.served else self.bare, pull)

    def take(self, pull: Pull, fact: Event) -> bool:
        """Let a pull take a manifest; true if its platform is known now."""
        pulls = self.served if pull.served else self.bare
        first = pull.take(fact)
        if first or not pull.lacks:
            pulls.remove(pull)
            self.place(pull)
        return first


class Pulls:
    """The open pulls and recent HEADs of one source."""

    __slots__ = ("heads", "images", "room", "until")

    def __init__(self) -> None:
        self.room = _ROOM
        self.images: dict[tuple[str, str], Image] = {}
        self.heads: dict[tuple[str, str, str], tuple[int, str]] = {}
        self.until = 0

    def head(self, fact: Event) -> None:
        """A HEAD resolved a tag to a digest (C8)."""
        if fact.tag is not None and fact.digest is not None:
            self._tidy(fact.time)
            self.heads[fact.domain, fact.package, fact.digest] = (fact.time, fact.tag)
            self.until = max(self.until, fact.time + HEAD_US)

    def fetch(self, fact: Event) -> tuple[Verdict, Pull | None]:
        """Judge a manifest GET; with the pull whose opener's platform this made known."""
        image = self._image(fact)
        if fact.tag is None and fact.digest is not None:
            pull = image.find(fact.digest)
            if pull is not None:
                return self._join(image, pull, fact)
        version, tag = self._version(fact)
        verdict = Verdict(counted=True, version=version, tag=tag, platform=fact.platform)
        self._open(image, fact, verdict)
        return verdict, None

    def restore(self, fact: Event, verdict: Verdict) -> None:
        """Take in a manifest GET that was judged before, in order."""
        image = self._image(fact)
        if verdict.counted:
            # What it took is told again by the facts that follow.
            verdict.platform = fact.platform
            self._open(image, fact, verdict)
        elif verdict.part_of is not None and fact.digest is not None:
            for pull in (*image.bare, *image.served):
                if pull.id == verdict.part_of and fact.digest in pull.lacks:
                    image.take(pull, fact)
                    return

    def over(self, now_us: int) -> bool:
        """Nothing is open or remembered any more at this moment."""
        return now_us >= self.until

    def _tidy(self, now_us: int) -> None:
        if len(self.heads) + len(self.images) < self.room:
            return
        self.heads = {key: head for key, head in self.heads.items() if head[0] > now_us - HEAD_US}
        for image in self.images.values():
            image.expire(now_us)
        self.images = {key: image for key, image in self.images.items() if image.bare or image.served}
        self.room = max(_ROOM, 2 * (len(self.heads) + len(self.images)))

    def _image(self, fact: Event) -> Image:
        self._tidy(fact.time)
        key = (fact.domain, fact.package)
        image = self.images.get(key)
        if image is None:
            image = self.images[key] = Image()
        image.expire(fact.time)
        return image

    def _join(self, image: Image, pull: Pull, fact: Event) -> tuple[Verdict, Pull | None]:
        verdict = Verdict(
            counted=False,
            rule="C7",
            part_of=pull.id,
            version=pull.verdict.version or fact.version,
            tag=pull.verdict.tag,
            platform=fact.platform or pull.lacks[fact.digest or ""] or None,
        )
        return verdict, pull if image.take(pull, fact) else None

    def _open(self, image: Image, fact: Event, verdict: Verdict) -> None:
        image.place(Pull(fact, verdict))
        self.until = max(self.until, fact.time + OPEN_US)

    def _version(self, fact: Event) -> tuple[str | None, str | None]:
        """C8: the tag asked for, the tag that a HEAD resolved to this digest, or the digest."""
        if fact.tag is not None:
            return fact.version or fact.tag, fact.tag
        head = self.heads.get((fact.domain, fact.package, fact.digest or ""))
        if head is not None and head[0] > fact.time - HEAD_US:
            return fact.version or head[1], head[1]
        return fact.version or fact.digest, None
