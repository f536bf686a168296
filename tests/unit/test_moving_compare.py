"""Would anyone notice a move: functions of what two registries and the event store say."""

from __future__ import annotations

import pytest

from waypost.artifacts.reference import parse_upstream
from waypost.moving.compare import Answer, Comparison, Row, compare, objections, to_copy
from waypost.moving.words import Counter, commands, lines
from waypost.stores.store import Used

A, B, C = (f"sha256:{letter * 64}" for letter in "abc")
HAS_A, HAS_B, NONE, SILENT = Answer(A), Answer(B), Answer(), Answer(why="no connection")
OLD, NEW = parse_upstream("acme/skates"), parse_upstream("quay.io/acme/skates")


def used(reference, digest=None, pulls=1, times=1):
    return Used(reference, digest, pulls, times)


@pytest.mark.parametrize(
    ("old", "new", "pulled", "state"),
    [
        (HAS_A, HAS_A, None, "same"),
        (HAS_A, HAS_B, None, "different"),
        (HAS_A, HAS_B, B, "different"),  # what it was last says nothing where the old one itself says what it is
        (HAS_A, NONE, None, "missing"),
        (HAS_A, SILENT, None, "unknown"),
        (NONE, NONE, A, "gone"),
        (NONE, HAS_A, A, "same"),
        (NONE, HAS_B, A, "different"),
        (NONE, SILENT, A, "unknown"),
        (SILENT, HAS_A, A, "same"),
        (SILENT, HAS_B, A, "unknown"),
        (SILENT, HAS_A, None, "unknown"),
        (SILENT, NONE, A, "missing"),
        (SILENT, SILENT, A, "unknown"),
    ],
)
def test_a_tag(old, new, pulled, state):
    uses = [used("1.0", pulled)] if pulled else []
    (row,) = compare(uses, ["1.0"], {"1.0": old}, {"1.0": new}, {})
    assert (row.reference, row.state, row.old, row.new) == ("1.0", state, old.digest, new.digest)


@pytest.mark.parametrize(
    ("old", "new", "state"),
    [(HAS_A, HAS_A, "same"), (SILENT, HAS_A, "same"), (HAS_A, NONE, "missing"), (NONE, NONE, "gone")],
)
def test_a_digest_needs_nobody_to_say_what_it_is(old, new, state):
    (row,) = compare([used(A, A)], [], {A: old}, {A: new}, {})
    assert row.state == state


def test_what_is_in_use_comes_first_and_everything_comes_once():
    answers = dict.fromkeys(["1.0", A, "2.0", "3.0"], HAS_A)
    rows = compare([used("2.0", A, 9), used(A, A, 1)], ["1.0", "2.0", "3.0"], answers, answers, {})
    assert [(row.reference, row.used is not None) for row in rows] == [
        ("2.0", True), (A, True), ("1.0", False), ("3.0", False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("of_old", "of_new", "state", "why"),
    [
        (HAS_B, HAS_B, "same", ""),
        (HAS_B, NONE, "missing", f"it lists {B}, which is not there"),
        (SILENT, NONE, "missing", f"it lists {B}, which is not there"),
        (NONE, NONE, "same", ""),  # a list of more than was ever copied
        (HAS_B, SILENT, "unknown", "no connection"),
    ],
)
def test_the_same_index_without_what_it_lists_is_not_the_same(of_old, of_new, state, why):
    old, new = {"1.0": HAS_A, C: Answer(C), B: of_old}, {"1.0": HAS_A, C: Answer(C), B: of_new}
    (row,) = compare([used("1.0")], [], old, new, {A: [C, B]})
    assert (row.state, row.why) == (state, why)


def test_an_index_that_cannot_be_read_is_unknown():
    (row,) = compare([used("1.0")], [], {"1.0": HAS_A}, {"1.0": HAS_A}, {A: Answer(why="a riddle")})
    assert (row.state, row.why) == ("unknown", "a riddle")


def row(reference, state, pulled=True, old=None, new=None):
    return Row(reference, state, used(reference) if pulled else None, old, new)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], []),
        ([row("1", "same"), row("2", "gone")], []),
        ([row("1", "same"), row("2", "missing", False), row("3", "different", False)], []),
        ([row("1", "missing"), row("2", "missing"), row(A, "missing")], ["2 tags and 1 digest in use are not there"]),
        ([row(A, "missing")], ["1 digest in use is not there"]),
        ([row("1", "different"), row("2", "same")], ["1 tag in use is something else there"]),
        ([row("1", "unknown", False), row("2", "same")], ["of 1 tag it is not known what is there"]),
        ([row("1", "missing", False), row("2", "missing", False)], ["nothing of it is there; is the name right?"]),
    ],
)
def test_objections(rows, says):
    assert objections(Comparison(tuple(rows))) == says


def test_what_could_not_be_learnt_is_an_objection():
    assert objections(Comparison((row("1", "same"),), ("nobody answers",))) == ["nobody answers"]


@pytest.mark.parametrize(
    ("kept", "noticed"),
    [
        (row(A, "missing", old=A), False),
        (row("1", "missing", old=A, new=A), False),  # the index is there; what it lists comes by digest
        (row("1", "missing", old=A), True),  # a tag that the first one does not know is a 404
        (row("1", "different", old=A, new=B), True),
        (row(A, "missing"), True),
    ],
)
def test_an_old_upstream_that_stays_serves_digests_and_no_tags(kept, noticed):
    comparison = Comparison((kept, row("9", "same")))
    assert bool(objections(comparison, keep_old=True)) == noticed
    assert objections(comparison)


def test_a_digest_is_copied_by_itself_where_nothing_else_brings_it():
    rows = [
        row(A, "missing", old=A),  # 1.0 is the same
        row(C, "missing", old=C),  # 2.0 lists it
        row(B.replace("b", "d"), "missing", old=B.replace("b", "d")),
        row("1.0", "missing", old=A),
        row("2.0", "different", old=B, new=A),
        row("3.0", "same", old=A, new=A),
        row("4.0", "missing"),  # the old one does not say that it has it
    ]
    assert [one.reference for one in to_copy(rows, {B: [C]})] == ["1.0", "2.0", B.replace("b", "d")]


def test_commands_name_registries_as_clients_do():
    comparison = Comparison((row("1.0", "missing", old=B), row(A, "missing", old=A)))
    assert list(commands(comparison, OLD, NEW, {})) == [
        "skopeo copy --all --preserve-digests docker://docker.io/acme/skates:1.0 docker://quay.io/acme/skates:1.0",
        f"skopeo copy --all --preserve-digests docker://docker.io/acme/skates@{A} docker://quay.io/acme/skates@{A}",
    ]


def test_lines():
    rows = (
        Row("1.0", "missing", used("1.0", pulls=1234)),
        Row("edge", "different", used("edge", pulls=0, times=2), A, B),
        Row(C, "unknown", None, why="no connection"),
        Row("2.0", "same", used("2.0")),
        Row("3.0", "same"),
    )
    assert list(lines(Comparison(rows))) == [
        "missing    1.0                  1,234 pulls",
        "different  edge                 asked for 2 times  sha256:aaaaaaaaaaaa became sha256:bbbbbbbbbbbb",
        "unknown    sha256:cccccccccccc  not pulled lately  no connection",
        "same: 2 of 5, 1 of them pulled lately",
    ]


class Stream:
    def __init__(self, terminal):
        self.isatty = lambda: terminal
        self.flush = lambda: None
        self.text = ""

    def write(self, text):
        self.text += text


def test_progress_is_a_line_for_every_twenty_and_one_place_on_a_terminal():
    plain, terminal = Stream(False), Stream(True)
    for stream in (plain, terminal):
        counter = Counter(stream)
        for done in range(1, 46):
            counter(done, 45)
    assert plain.text == "asked 20 of 45\nasked 40 of 45\nasked 45 of 45\n"
    assert "\n" not in terminal.text
    assert terminal.text.endswith("asked 44 of 45\r\x1b[K")
