from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waypost.stores import arrow
from waypost.stores.arrow import Blocks, Coded, Column, Numbers, Table

HOSTILE = [
    "",
    "\x00",
    "a\x00b",
    "\n",
    "\r\n",
    "\t",
    '"',
    "\\",
    "\\n",
    "\\N",
    "null",
    "NULL",
    "None",
    "é",
    "\ud7ff",
    "🛼",
    "\U0010ffff",
    "x" * 100_000,
]


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as made:
        yield made


def read(connection: duckdb.DuckDBPyConnection, **columns: Column) -> list[tuple[Any, ...]]:
    connection.register("incoming", Table(columns))
    rows = connection.execute("SELECT * FROM incoming").fetchall()
    connection.unregister("incoming")
    return rows


def filled(column: Column, *batches: list[Any]) -> Column:
    for batch in batches:
        column.extend(batch)
    return column


@pytest.mark.parametrize("values", [HOSTILE, [None, *HOSTILE, None], [None] * 3, [""] * 3, ["", None, ""], ["x"]])
def test_strings_come_back_as_they_were(connection: duckdb.DuckDBPyConnection, values: list[str | None]) -> None:
    assert read(connection, text=filled(Coded(), values)) == [(value,) for value in values]


def test_bytes_that_are_text_and_bytes_that_are_not(connection: duckdb.DuckDBPyConnection) -> None:
    rows = read(connection, a=filled(Coded(), [b"\xc3\xa9", None]), b=filled(Coded(blob=True), [b"\xff\x00", None]))
    assert rows == [("é", b"\xff\x00"), (None, None)]


BATCHES: dict[str, tuple[Callable[[], Column], st.SearchStrategy[Any]]] = {
    "text": (Coded, st.none() | st.text(st.characters(codec="utf-8"), max_size=3) | st.sampled_from(["a", "b"])),
    "blob": (lambda: Coded(blob=True), st.none() | st.binary(max_size=2)),
    "block": (lambda: Blocks(2), st.binary(min_size=2, max_size=2)),
    "wide": (lambda: Numbers("q"), st.integers(-(1 << 63), (1 << 63) - 1)),
    "short": (lambda: Numbers("H"), st.integers(0, 65535)),
    "sparse": (lambda: Numbers("q", sparse=True), st.none() | st.integers(-(1 << 63), (1 << 63) - 1)),
    "flag": (lambda: Numbers("B"), st.booleans()),
}


@pytest.mark.parametrize("kind", BATCHES)
def test_any_values_in_any_batches(connection: duckdb.DuckDBPyConnection, kind: str) -> None:
    make, value = BATCHES[kind]

    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(st.lists(value, max_size=12) | st.builds(lambda v, n: [v] * n, value, st.integers(1, 9)), max_size=4)
    )
    def check(batches: list[list[Any]]) -> None:
        expected = [value for batch in batches for value in batch]
        column = filled(make(), *batches)
        assert [
            one
            for one, _ in read(
                connection, column=column, beside=filled(Numbers("q"), expected and [*range(len(expected))])
            )
        ] == expected

    check()


def test_more_rows_than_an_engine_takes_at_once(connection: duckdb.DuckDBPyConnection) -> None:
    numbers = list(range(10_000))
    texts = [None if n % 7 == 0 else str(n % 300) for n in numbers]
    ids = [n.to_bytes(16) for n in numbers]
    columns = {"n": filled(Numbers("q"), numbers), "text": filled(Coded(), texts), "id": filled(Blocks(16), ids)}
    assert read(connection, **columns) == list(zip(numbers, texts, ids, strict=True))


def test_a_table_may_be_read_again_and_by_several_statements(connection: duckdb.DuckDBPyConnection) -> None:
    connection.register("incoming", Table({"n": filled(Numbers("q"), [1, 2])}))
    for _ in range(3):
        assert connection.execute("SELECT sum(a.n * b.n) FROM incoming a, incoming b").fetchone() == (9,)


def test_an_empty_table_and_one_whose_columns_differ(connection: duckdb.DuckDBPyConnection) -> None:
    assert read(connection, n=Numbers("q"), text=Coded(), id=Blocks(16)) == []
    with pytest.raises(ValueError, match="one length"):
        Table({"a": filled(Numbers("q"), [1]), "b": filled(Coded(), ["x", "y"])})


def test_what_cannot_be_stored_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        filled(Coded(), ["\ud800"]).made()
    with pytest.raises(ValueError, match="not 16 bytes"):
        filled(Blocks(16), [b"short"]).made()
    with pytest.raises(OverflowError):
        filled(Numbers("H"), [65536])


def test_all_that_was_lent_is_given_back(connection: duckdb.DuckDBPyConnection) -> None:
    gc.collect()
    before = len(arrow._lent)
    for n in range(5):
        assert len(read(connection, text=filled(Coded(), [*map(str, range(3000))]))) == 3000
        connection.register("incoming", Table({"n": filled(Numbers("q"), [n])}))
        with pytest.raises(duckdb.Error, match="told to"):
            connection.execute("SELECT error('told to') FROM incoming")
        connection.unregister("incoming")
    gc.collect()
    assert len(arrow._lent) == before
