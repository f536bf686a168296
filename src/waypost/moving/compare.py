"""Would anyone notice? What two registries say of the same tags and digests, set against what people pull.

Nothing here asks anybody: these are functions of what was answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from msgspec import Struct

from waypost.stores.store import Used

State = Literal["same", "missing", "different", "unknown", "gone"]


class Answer(Struct, frozen=True):
    """What a registry says of a tag or digest: the digest it has there; None: it has none; `why`: it did not tell."""

    digest: str | None = None
    why: str = ""


class Row(Struct, frozen=True):
    """A tag or digest, and what becomes of it.

    state    same       the new one has what the old one has
             missing    the new one lacks it, or some of it
             different  it means something else there
             unknown    a registry did not tell
             gone       neither has it: nobody can notice
    used     how it was pulled lately; None: nobody asked for it
    """

    reference: str
    state: State
    used: Used | None = None
    old: str | None = None
    new: str | None = None
    why: str = ""

    @property
    def is_digest(self) -> bool:
        return ":" in self.reference


class Comparison(Struct, frozen=True):
    """All rows: in use first, the most pulled first; then the other tags, in the order of the old registry.

    problems  sentences about what could not be learnt at all
    """

    rows: tuple[Row, ...]
    problems: tuple[str, ...] = ()


def references(used: Iterable[Used], tags: Iterable[str]) -> list[str]:
    """What is to be compared, each once."""
    return list(dict.fromkeys([*(one.reference for one in used), *tags]))


def compare(
    used: Sequence[Used],
    tags: Sequence[str],
    old: Mapping[str, Answer],
    new: Mapping[str, Answer],
    listed: Mapping[str, Sequence[str] | Answer],
) -> tuple[Row, ...]:
    """`old` and `new` by reference. `listed`: digest of an index in use → what it lists, which `new` knows too, or why
    that is not known."""
    uses = {one.reference: one for one in used}
    rows = []
    for reference in references(used, tags):
        state, why = _state(reference, uses.get(reference), old[reference], new[reference])
        if state == "same":
            state, why = _within(listed.get(new[reference].digest or "", ()), old, new) or (state, why)
        rows.append(Row(reference, state, uses.get(reference), old[reference].digest, new[reference].digest, why))
    return tuple(rows)


def _within(
    listed: Sequence[str] | Answer, old: Mapping[str, Answer], new: Mapping[str, Answer]
) -> tuple[State, str] | None:
    """What is wrong with what an index lists, though the index itself is there."""
    if isinstance(listed, Answer):
        return "unknown", listed.why
    for child in listed:
        if new[child].why:
            return "unknown", new[child].why
        if new[child].digest is None and old[child] != Answer():
            return "missing", f"it lists {child}, which is not there"
    return None


def _state(reference: str, used: Used | None, old: Answer, new: Answer) -> tuple[State, str]:
    if new.why:
        return "unknown", new.why
    if new.digest is None:
        return ("missing", "") if old.digest or old.why else ("gone", "neither has it any more")
    if new.digest in (old.digest, reference):
        return "same", ""
    # Where the old one has nothing to say, what people got last is what they shall get.
    if old.digest is None and used is not None and used.digest == new.digest:
        return "same", "as it was pulled last"
    if old.why:
        return "unknown", old.why
    return "different", "" if old.digest else "the old registry has it no more"


def objections(comparison: Comparison, keep_old: bool = False) -> list[str]:
    """Why not to move, in sentences; [] if nobody would notice. `keep_old`: the old one goes on as second."""
    rows = comparison.rows
    told = list(comparison.problems)
    for state, verb in (("missing", "not there"), ("different", "something else there")):
        found = [row for row in rows if row.state == state and row.used and not (keep_old and _stands_in(row))]
        if found:
            told.append(f"{_counted(found)} in use {'is' if len(found) == 1 else 'are'} {verb}")
    if unknown := [row for row in rows if row.state == "unknown"]:
        told.append(f"of {_counted(unknown)} it is not known what is there")
    if rows and all(row.state in ("missing", "gone") for row in rows) and not any(row.used for row in rows):
        told.append("nothing of it is there; is the name right?")
    return told


def _stands_in(row: Row) -> bool:
    """Whether the old upstream, as second, serves what is missing: digests may come from any, tags from the first."""
    return row.state == "missing" and row.old is not None and (row.is_digest or row.new is not None)


def _counted(rows: Sequence[Row]) -> str:
    digests = sum(row.is_digest for row in rows)
    tags = len(rows) - digests
    words = [f"{many:,} {noun}{'s' * (many != 1)}" for many, noun in ((tags, "tag"), (digests, "digest")) if many]
    return " and ".join(words)


def to_copy(rows: Sequence[Row], indexes: Mapping[str, Sequence[str]]) -> Iterator[Row]:
    """What must be copied: tags, then the digests that come along with none of these.

    indexes  digest of an index → what it lists, which is copied with it
    """
    wanting = [row for row in rows if row.state in ("missing", "different") and row.old is not None]
    covered: set[str] = set()
    for row in sorted(wanting, key=lambda row: row.is_digest):
        assert row.old is not None
        if row.is_digest and row.old in covered:
            continue
        covered.update((row.old, *indexes.get(row.old, ())))
        yield row
