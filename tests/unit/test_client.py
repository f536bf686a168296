"""Every client has a file in clients/: what it sends, and what we make of it. Adding one is data."""

from __future__ import annotations

import random
import tomllib
from pathlib import Path

import pytest

from waypost.counting.client import PERSON_OR_MACHINE, Client, Clients, Table, table

FOLDER = Path(__file__).parent / "clients"
SEEN = [
    pytest.param(path.stem, seen, id=f"{path.stem}-{number}")
    for path in sorted(FOLDER.glob("*.toml"))
    for number, seen in enumerate(tomllib.loads(path.read_text("utf-8"))["seen"])
]


@pytest.fixture(scope="module")
def shuffled() -> list[Clients]:
    """The table in several orders: none of them may matter."""
    found = []
    for seed in range(4):
        chance = random.Random(seed)
        rows = table()
        found.append(
            Clients(
                Table(chance.sample(rows.client, len(rows.client)), chance.sample(rows.stranger, len(rows.stranger)))
            )
        )
    return found


@pytest.mark.parametrize(("file", "seen"), SEEN)
def test_what_we_make_of_it(file: str, seen: dict[str, str], shuffled: list[Clients]) -> None:
    expected = Client(seen["client"], seen.get("version"), seen.get("class", PERSON_OR_MACHINE))
    for clients in shuffled:
        assert clients.of(seen["user_agent"]) == expected
    matches = shuffled[0].matches(seen["user_agent"])
    assert matches == ([] if file == "strangers" else [expected.name]), "rows exclude each other"


def test_every_row_has_a_file_and_every_file_a_row() -> None:
    names = [row.name for row in table().client]
    assert len(names) == len(set(names))
    assert {path.stem for path in FOLDER.glob("*.toml")} == {*names, "strangers"}


@pytest.mark.parametrize("user_agent", [None, "", " ", "\x00", "{}", "-", "/1.0", "(x)", "é/1.0", "x" * 5000, "Ünï/1"])
def test_what_says_nothing_is_nobody(user_agent: str | None) -> None:
    assert Clients(table()).of(user_agent) == Client(None, None, PERSON_OR_MACHINE)


@pytest.mark.parametrize(
    "hostile",
    [
        "Mozilla/5.0 " + "(" * 100_000,
        "Mozilla/5.0 " + "Googlebo" * 20_000,
        "a" * 100_000 + " bot",
        "curl/" + "." * 99_999,
    ],
)
def test_a_long_user_agent_is_cut_before_it_is_read(hostile: str) -> None:
    clients = Clients(table())
    assert clients.of(hostile) == clients.of(hostile[:2048])
