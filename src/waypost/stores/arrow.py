"""Columns in memory, handed to an engine as an Arrow C stream, without a library.

DuckDB reads this in a third of the time that JSON or CSV take: nothing is escaped, quoted, parsed or written to a
file, and a string that occurs many times is hashed here and copied once. Layouts and ownership follow Arrow's C data
interface, C stream interface and PyCapsule interface (arrow.apache.org/docs/format/CDataInterface.html and its
neighbours).
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Mapping, Sequence
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p
from itertools import accumulate, count
from typing import Any, ClassVar, NamedTuple, Protocol

_NULLABLE = 2  # ARROW_FLAG_NULLABLE


class _Schema(Structure):
    release: Any
    private_data: int | None


class _Array(Structure):
    release: Any
    private_data: int | None


class _Stream(Structure):
    private_data: int | None


_RELEASE_SCHEMA = CFUNCTYPE(None, POINTER(_Schema))
_RELEASE_ARRAY = CFUNCTYPE(None, POINTER(_Array))
_RELEASE_STREAM = CFUNCTYPE(None, POINTER(_Stream))
_GET_SCHEMA = CFUNCTYPE(c_int, POINTER(_Stream), POINTER(_Schema))
_GET_NEXT = CFUNCTYPE(c_int, POINTER(_Stream), POINTER(_Array))
_GET_LAST_ERROR = CFUNCTYPE(c_void_p, POINTER(_Stream))

_Schema._fields_ = [
    ("format", c_char_p),
    ("name", c_char_p),
    ("metadata", c_char_p),
    ("flags", c_int64),
    ("n_children", c_int64),
    ("children", POINTER(POINTER(_Schema))),
    ("dictionary", POINTER(_Schema)),
    ("release", _RELEASE_SCHEMA),
    ("private_data", c_void_p),
]
_Array._fields_ = [
    ("length", c_int64),
    ("null_count", c_int64),
    ("offset", c_int64),
    ("n_buffers", c_int64),
    ("n_children", c_int64),
    ("buffers", POINTER(c_void_p)),
    ("children", POINTER(POINTER(_Array))),
    ("dictionary", POINTER(_Array)),
    ("release", _RELEASE_ARRAY),
    ("private_data", c_void_p),
]
_Stream._fields_ = [
    ("get_schema", _GET_SCHEMA),
    ("get_next", _GET_NEXT),
    ("get_last_error", _GET_LAST_ERROR),
    ("release", _RELEASE_STREAM),
    ("private_data", c_void_p),
]


class Made(NamedTuple):
    """A column as Arrow has it. `buffers` as its format demands; None is an absent one."""

    format: bytes
    length: int
    buffers: Sequence[bytes | array[int] | None]
    dictionary: Made | None = None


class Column(Protocol):
    def extend(self, values: Sequence[Any], /) -> None: ...

    def made(self) -> Made: ...


class Numbers:
    """Integers, or booleans as 0 and 1, and None if they are `sparse`. `code` is of the array module: B, H or q."""

    _FORMATS: ClassVar = {"B": b"C", "H": b"S", "q": b"l"}

    def __init__(self, code: str, sparse: bool = False) -> None:
        self._format = self._FORMATS[code]
        self._values = array(code)
        self._there = array("i") if sparse else None

    def extend(self, values: Sequence[Any]) -> None:
        if self._there is not None:
            if values.count(None) == len(values):  # as often: then there is nothing to look at one by one
                values = [0] * len(values)
                self._there.fromlist(values)
            else:
                self._there.fromlist([value is not None for value in values])
                values = [value or 0 for value in values]
        self._values.fromlist(list(values))

    def made(self) -> Made:
        if self._there is None:
            return Made(self._format, len(self._values), [None, self._values])
        if not any(self._there):
            return Made(b"n", len(self._values), [])
        return Made(self._format, len(self._values), [_validity(self._there, 0), self._values])


class Blocks:
    """Byte strings of one width, most of them different, none of them None."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._bytes = bytearray()

    def extend(self, values: Sequence[bytes]) -> None:
        self._bytes += b"".join(values)

    def made(self) -> Made:
        whole, rest = divmod(len(self._bytes), self._width)
        if rest:
            raise ValueError(f"a value is not {self._width} bytes long")
        return Made(b"w:%d" % self._width, whole, [None, bytes(self._bytes)])


class _Codes(dict[Any, int]):
    """value → its place in the order of coming."""

    def __missing__(self, value: object) -> int:
        code = self[value] = len(self)
        return code


class Coded:
    """str, bytes or None, each different value once. Bytes stand for text that is UTF-8 already, or for a `blob`.

    Raises UnicodeEncodeError when made of strings that are no Unicode text.
    """

    def __init__(self, blob: bool = False) -> None:
        self._format = b"Z" if blob else b"U"  # the large ones: their offsets have 64 bits
        self._codes = _Codes()
        self._values = array("i")

    def extend(self, values: Sequence[str | bytes | None]) -> None:
        # Often all are None, or the same: comparing them then takes a fifth of hashing them.
        if values and values[0] == values[-1] and values.count(values[0]) == len(values):
            self._values += array("i", [self._codes[values[0]]]) * len(values)
        else:
            self._values.fromlist([*map(self._codes.__getitem__, values)])

    def made(self) -> Made:
        codes, values = self._codes, self._values
        if codes.keys() == {None}:
            return Made(b"n", len(values), [])
        null = codes.get(None)
        parts = [value.encode() if isinstance(value, str) else value or b"" for value in codes]
        offsets = array("q", accumulate(map(len, parts), initial=0))
        dictionary = Made(self._format, len(parts), [None, offsets, b"".join(parts)])
        return Made(b"i", len(values), [None if null is None else _validity(values, null), values], dictionary)


def _validity(codes: array[int], null: int) -> bytes:
    """One bit for each value, least significant first: is it there?"""
    bits = ["0" if code == null else "1" for code in reversed(codes)]
    return int("".join(bits), 2).to_bytes((len(codes) + 7) // 8, "little")


# What a consumer was lent and has not released yet: private_data → whatever its pointers point to.
_lent: dict[int, tuple[object, ...]] = {}
_keys = count(1)


def _release(lent: Any) -> None:
    """The consumer needs a structure no more. By the specification its release is NULL from then on."""
    lent.contents.release = type(lent.contents.release)()
    _lent.pop(lent.contents.private_data, None)


_release_schema = _RELEASE_SCHEMA(_release)
_release_array = _RELEASE_ARRAY(_release)
_release_stream = _RELEASE_STREAM(_release)
_get_last_error = _GET_LAST_ERROR(lambda _: None)

_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = [c_void_p, c_char_p, c_void_p]


class Table:
    """Columns of one length, by name. It has to outlive every statement that reads it; streams of it may be many."""

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self._columns = {name: column.made() for name, column in columns.items()}
        self._length = next((made.length for made in self._columns.values()), 0)
        if any(made.length != self._length for made in self._columns.values()):
            raise ValueError("columns of one table have one length")
        self._streams: list[_Stream] = []

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """A capsule of a stream of one batch. What schema is requested plays no part: the consumer may cast."""
        batches = iter([self._array])

        def schema(_: Any, out: Any) -> int:
            _hand_over(self._schema(), out)
            return 0

        def following(_: Any, out: Any) -> int:
            batch = next(batches, None)
            if batch is None:
                out.contents.release = _RELEASE_ARRAY()  # the end of the stream
            else:
                _hand_over(batch(), out)
            return 0

        stream = _Stream(_GET_SCHEMA(schema), _GET_NEXT(following), _get_last_error, _release_stream)
        # It owns nothing but itself, and stays with us: the capsule needs no destructor.
        self._streams.append(stream)
        return _new_capsule(ctypes.addressof(stream), b"arrow_array_stream", None)

    def _schema(self) -> tuple[_Schema, tuple[object, ...]]:
        fields = [_schema_of(made, name) for name, made in self._columns.items()]
        children = (POINTER(_Schema) * len(fields))(*map(ctypes.pointer, fields))
        whole = _Schema(b"+s", b"", None, 0, len(fields), children, None, _release_schema)
        return whole, (children, fields)

    def _array(self) -> tuple[_Array, tuple[object, ...]]:
        arrays = [_array_of(made) for made in self._columns.values()]
        children = (POINTER(_Array) * len(arrays))(*map(ctypes.pointer, arrays))
        whole = _Array(self._length, 0, 0, 1, len(arrays), (c_void_p * 1)(), children, None, _release_array)
        return whole, (children, arrays, self._columns)


def _hand_over(made: tuple[_Schema | _Array, tuple[object, ...]], out: Any) -> None:
    """Copy a structure to where the consumer wants it, and keep what it points to until that is released."""
    whole, parts = made
    whole.private_data = key = next(_keys)
    _lent[key] = (whole, *parts)
    ctypes.memmove(out, ctypes.byref(whole), ctypes.sizeof(whole))


def _schema_of(made: Made, name: str) -> _Schema:
    dictionary = None if made.dictionary is None else ctypes.pointer(_schema_of(made.dictionary, ""))
    return _Schema(made.format, name.encode(), None, _NULLABLE, 0, None, dictionary, _release_schema)


def _array_of(made: Made) -> _Array:
    dictionary = None if made.dictionary is None else ctypes.pointer(_array_of(made.dictionary))
    buffers = (c_void_p * len(made.buffers))(*map(_address, made.buffers))
    nulls = made.length if made.format == b"n" else 0 if made.buffers[0] is None else -1  # -1: count them yourself
    return _Array(made.length, nulls, 0, len(buffers), 0, buffers, None, dictionary, _release_array)


def _address(buffer: bytes | array[int] | None) -> int | None:
    if isinstance(buffer, array):
        return buffer.buffer_info()[0]
    return None if buffer is None else ctypes.cast(c_char_p(buffer), c_void_p).value


__all__ = ["Blocks", "Coded", "Column", "Numbers", "Table"]
