"""The one line that a move changes, and how it is changed back."""

from __future__ import annotations

import difflib
import itertools
import tomllib

import pytest

from waypost.artifacts.reference import ImageName
from waypost.moving.line import MoveError, moved, restored

FILE = """\
# Ours. Do not sort.
base_domain = "waypost.example"   # where managed domains end
manifests = ["scarf.json"]

[[package]]  # the first
type   = "container"
name   = "acme/boots"
upstream   =   'ghcr.io/acme/boots'   # boots live here

[[package]]
name = "acme/many"
upstream = [
    "ghcr.io/acme/many",  # the first
    # a word between
    'docker pull quay.io/acme/many:1.0',  # the second
]  # the end
type = "container"
domains = ["a.example", "b.example"]

[[collection]]
pattern = "team/*"
domain = "a.example"
upstream = "ghcr.io"

[[package]]
name="acme/short"
upstream = ["ghcr.io/acme/short", "quay.io/acme/short"]#c
type="container"

[[package]]
type = "file"
name = "cli"
domain = "get.example"
routes = [{ path = "/x", to = "https://dl.example/x" }]
# The end."""
NEW = "reg.example/new/skates"


def difference(before, after):
    return [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] in "+-"]


def test_one_line_is_changed_and_its_comment_kept():
    change = moved(FILE, "acme/boots", NEW)
    assert difference(FILE, change.text) == [
        "- upstream   =   'ghcr.io/acme/boots'   # boots live here",
        '+ upstream   =   "reg.example/new/skates"   # boots live here',
    ]
    assert (change.old, change.new) == (ImageName("ghcr.io", "acme/boots"), ImageName("reg.example", "new/skates"))
    assert (change.was, change.now) == ("'ghcr.io/acme/boots'", NEW)


def test_the_old_one_may_stay_as_second():
    change = moved(FILE, "acme/boots", NEW, keep_old=True)
    assert change.now == [NEW, "ghcr.io/acme/boots"]
    assert difference(FILE, change.text)[1] == (
        '+ upstream   =   ["reg.example/new/skates", "ghcr.io/acme/boots"]   # boots live here'
    )


GHCR, QUAY = "ghcr.io/acme/many", "docker pull quay.io/acme/many:1.0"


@pytest.mark.parametrize(
    ("to", "leaving", "keep_old", "now"),
    [
        (NEW, None, False, [NEW, QUAY]),
        (NEW, None, True, [NEW, GHCR, QUAY]),
        (NEW, "quay.io/acme/many", False, [GHCR, NEW]),
        (NEW, "quay.io/acme/many", True, [GHCR, NEW, QUAY]),
        ("quay.io/acme/many", None, False, [QUAY]),  # it was there already, as the second
        ("quay.io/acme/many", None, True, [QUAY, GHCR]),
        ("ghcr.io/acme/many", "quay.io/acme/many", False, [GHCR]),  # leaving what was kept
    ],
)
def test_lists(to, leaving, keep_old, now):
    change = moved(FILE, "acme/many", to, leaving, keep_old)
    (package,) = [one for one in tomllib.loads(change.text)["package"] if one["name"] == "acme/many"]
    assert package["upstream"] == change.now == now
    assert "    # a word between\n" in change.text
    assert "]  # the end\n" in change.text


def test_items_keep_their_comments():
    assert difference(FILE, moved(FILE, "acme/many", NEW, "quay.io/acme/many").text) == [
        "-     'docker pull quay.io/acme/many:1.0',  # the second",
        '+     "reg.example/new/skates",  # the second',
    ]
    assert difference(FILE, moved(FILE, "acme/many", NEW, keep_old=True).text) == ['+     "reg.example/new/skates",']


@pytest.mark.parametrize("text", [FILE, FILE.replace("\n", "\r\n"), "\ufeff" + FILE], ids=["plain", "crlf", "bom"])
@pytest.mark.parametrize("name", ["acme/boots", "acme/many", "acme/short"])
def test_nothing_else_changes_and_undo_is_exact(text, name):
    others = ["quay.io/acme/many", "quay.io/acme/short", "ghcr.io/acme/many"]
    done = 0
    for to, leaving, keep_old in itertools.product([NEW, *others], [None, *others], [False, True]):
        try:
            change = moved(text, name, to, leaving, keep_old)
        except MoveError:
            continue
        done += 1
        assert change.text.count("\r\n") in (0, change.text.count("\n"))
        before, after = (tomllib.loads(one.removeprefix("\ufeff")) for one in (text, change.text))
        (package,) = [one for one in before["package"] if one["name"] == name]
        package["upstream"] = change.now
        assert after == before
        assert restored(change.text, name, change.was, change.now) == text
    assert done >= 4


@pytest.mark.parametrize(
    "text",
    [
        'package = [{ type = "container", name = "acme/boots", upstream = "ghcr.io/acme/boots" }]',
        # A string that looks like the line hides the line.
        '[[package]]\ntype = "container"\nname = "acme/boots"\nowner = """\nupstream = "x/y"\n"""\nupstream = "a/b"',
    ],
)
def test_what_is_no_line_of_its_own_is_left_to_people(text):
    with pytest.raises(MoveError, match=r'write upstream = "reg\.example/new/skates" by hand'):
        moved(text, "acme/boots", NEW)


@pytest.mark.parametrize(
    ("name", "to", "leaving", "says"),
    [
        (
            "acme/hats",
            NEW,
            None,
            "the images of the file are acme/boots, acme/many, acme/short. What manifests declare",
        ),
        ("cli", NEW, None, "cli is no image"),
        ("team/x", NEW, None, "comes from the [[collection]] team/*"),
        ("acme/boots", "quay.io", None, "such as quay.io/acme/boots"),
        ("acme/boots", "https://dl.example/x", None, "the new upstream: 'https://dl.example/x' is a URL"),
        ("acme/boots", "ghcr.io/acme/boots:1.0", None, "acme/boots is at ghcr.io/acme/boots already"),
        ("acme/many", "ghcr.io/acme/many", None, f"already; to leave {QUAY}, say --from"),
        ("acme/many", NEW, "gcr.io/x/y", f"--from: found 'gcr.io/x/y'; acme/many is at ghcr.io/acme/many, {QUAY}"),
        ("acme/many", NEW, "A B", "--from: "),
    ],
)
def test_what_cannot_be_moved(name, to, leaving, says):
    with pytest.raises(MoveError) as raised:
        moved(FILE, name, to, leaving)
    assert says in str(raised.value)


def test_a_name_of_two_owners_is_nobodys_to_choose():
    twice = FILE + '\n[[package]]\ntype = "container"\nname = "acme/boots"\nowner = "b"\nupstream = "x/y"\n'
    with pytest.raises(MoveError, match="declared 2 times"):
        moved(twice, "acme/boots", NEW)


def test_undo_refuses_what_it_did_not_do():
    change = moved(FILE, "acme/boots", NEW)
    with pytest.raises(MoveError, match="nothing to undo"):
        restored(FILE, "acme/boots", change.was, change.now)
    with pytest.raises(MoveError) as raised:
        restored(change.text.replace(NEW, "other.example/x"), "acme/boots", change.was, change.now)
    assert str(raised.value) == (
        'upstream of acme/boots is "other.example/x" meanwhile; the move had made it "reg.example/new/skates". '
        'Change it by hand; before the move it was "ghcr.io/acme/boots"'
    )
    with pytest.raises(MoveError, match="is not declared"):
        restored(change.text.replace("acme/boots", "acme/shoes"), "acme/boots", change.was, change.now)
