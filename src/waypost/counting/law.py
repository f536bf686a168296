"""The law of counting (docs/what-we-count.md) as a fold over one source's facts, sorted by (time, id).

A Source is the state of that fold. It is small: merge windows of some seconds (C6), pulls and HEADs of ten minutes
(C7, C8). What it decides depends on the facts of the last `horizon_us` only, so that it can be rebuilt from stored
rows just before any moment.
"""

from __future__ import annotations

from waypost.counting.pulls import HEAD_US, OPEN_US, Pull, Pulls
from waypost.events.event import Event
from waypost.stores.store import Verdict

# C1: 304 is neither a redirect nor a success that sends anything.
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

# C3: files that accompany a download.
COMPANIONS = (
    ".asc",
    ".att",
    ".crt",
    ".cyclonedx.json",
    ".gpg",
    ".intoto.jsonl",
    ".key",
    ".md5",
    ".metadata",
    ".minisig",
    ".pem",
    ".pom",
    ".prov",
    ".provenance",
    ".pub",
    ".sbom",
    ".sha1",
    ".sha224",
    ".sha256",
    ".sha256sum",
    ".sha384",
    ".sha512",
    ".sha512sum",
    ".sig",
    ".sigstore",
    ".sigstore.json",
    ".spdx.json",
)

# Most paths end in none of these: one look says so, before all of COMPANIONS are tried.
_LAST = frozenset(suffix.rpartition(".")[2] for suffix in COMPANIONS)

# C9: what a manifest fetch may bring for it to be a pull. Everything else accompanies an image.
PULLED = frozenset({None, "artifact", "chart", "image", "index"})

# Kinds that no rule needs: what leaves them out.
_NEVER = {"index-fetch": "C3", "blob-fetch": "C9"}

# Kinds that are counted one by one, whatever came before.
_ALWAYS = frozenset({"pixel-fetch", "telemetry"})

# A source that never rests is cleared of closed windows when it holds this many, and then at twice the rest.
_ROOM = 64


def horizon_us(merge_us: int) -> int:
    """How far back a verdict may depend on other facts."""
    return max(merge_us, OPEN_US, HEAD_US)


def left_out(fact: Event) -> str | None:
    """The rule that leaves a fact out whatever else the source did; None if the rest of the law must say."""
    status = fact.status
    if status not in _REDIRECTS and not 200 <= status < 300:
        return "C1"
    kind = fact.kind
    if fact.method != "GET" and not (kind == "telemetry" and fact.method == "POST"):
        return "C2"
    if kind in _NEVER:
        return _NEVER[kind]
    if kind == "manifest-fetch" and fact.artifact not in PULLED:
        return "C9"
    if kind == "binary-download" and _accompanies(fact.path):
        return "C3"
    return "C4" if fact.partial else None


def _accompanies(path: str) -> bool:
    return path.rpartition(".")[2].lower() in _LAST and path.lower().endswith(COMPANIONS)


class Source:
    """What one source did lately. Facts without an origin_id are judged each by a Source of its own."""

    __slots__ = ("last", "merge_us", "pulls", "room", "until", "windows")

    def __init__(self, merge_us: int) -> None:
        self.merge_us = merge_us
        self.last: tuple[int, bytes] = (-(1 << 62), b"")
        self.windows: dict[tuple[str, str, str], tuple[int, bytes]] | None = None
        self.until = 0
        self.room = _ROOM
        self.pulls: Pulls | None = None

    def judge(self, fact: Event) -> tuple[Verdict, Pull | None]:
        """Decide about the next fact. Also the pull whose opener's verdict this has changed, if any."""
        self.last = (fact.time, fact.id)
        rule = left_out(fact)
        first = None
        if rule is not None:
            if fact.kind == "manifest-head" and rule == "C2":
                self._pulls().head(fact)
        elif fact.kind == "manifest-fetch":
            return self._pulls().fetch(fact)
        elif fact.kind not in _ALWAYS:
            first = self._merged(fact)
            if first is not None:
                rule = "C6"
        return Verdict(rule is None, rule, first, fact.version, fact.tag, fact.platform), None

    def restore(self, fact: Event, verdict: Verdict) -> None:
        """Take in a fact that was judged before, in order; only the openers of pulls are told a platform anew."""
        self.last = (fact.time, fact.id)
        if fact.kind == "manifest-head":
            if left_out(fact) == "C2":
                self._pulls().head(fact)
        elif fact.kind == "manifest-fetch":
            if verdict.rule in (None, "C7"):
                self._pulls().restore(fact, verdict)
        elif verdict.counted and fact.kind not in _ALWAYS:
            self._merged(fact)

    def over(self, now_us: int) -> bool:
        """Whether a fact from this moment on finds the same as if the source had never been seen."""
        return self.last[0] < now_us and self.until <= now_us and (self.pulls is None or self.pulls.over(now_us))

    def _merged(self, fact: Event) -> bytes | None:
        """C6: the fetch that this one merges into. A window is as long as it is from its first fetch."""
        windows = self.windows
        if windows is None:
            windows = self.windows = {}
        key = (fact.package, fact.domain, fact.path)
        first = windows.get(key)
        if first is not None and fact.time < first[0] + self.merge_us:
            return first[1]
        if len(windows) >= self.room:
            self._tidy(fact.time - self.merge_us)
        windows[key] = self.last
        self.until = fact.time + self.merge_us
        return None

    def _tidy(self, over_us: int) -> None:
        windows = self.windows or {}
        for key in [key for key, first in windows.items() if first[0] <= over_us]:
            del windows[key]
        self.room = max(_ROOM, 2 * len(windows))

    def _pulls(self) -> Pulls:
        if self.pulls is None:
            self.pulls = Pulls()
        return self.pulls
