"""CSV files: an offset index, and any stretch of rows decoded through pyarrow."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from collections.abc import Sequence as Ordered
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bptt.errors import DataError
from bptt.streams._index import Groups, Index, Signature, indexed
from bptt.streams._table import (
    Block,
    Columns,
    Name,
    Selection,
    Type,
    find,
    need_pyarrow,
    no_number,
    read_apart,
)

EVERY = 32
"""Rows between two offsets: what decoding a stretch may waste at either end."""

BLOCK = 1 << 22
"""Bytes looked at together while indexing."""


@dataclass
class CsvTable:
    """See `bptt.streams._table.Table`."""

    path: Path
    index: Index
    header: list[str]
    names: list[Name]
    types: dict[Name, Type]
    flags: frozenset[Name] = frozenset()
    forward: bool = False

    def read(self, start: int, stop: int) -> Columns:
        """The selected columns of the rows ``start`` to ``stop - 1``."""
        low, high = start // EVERY, -(-stop // EVERY)
        first, last = low * EVERY, min(high * EVERY, self.index.rows)
        (data,) = self._bytes([(start, stop)])
        table = self._decode(data, first)
        if table.num_rows != last - first:
            raise DataError(
                f"{self.path}, rows {first} to {last - 1}: {table.num_rows} rows are where "
                f"{last - first} lines are: a line holds something other than one row."
            )
        part = table.slice(start - first, stop - start)
        return [to_numpy(part.column(str(name))) for name in self.names]

    def read_many(self, stretches: Ordered[tuple[int, int]]) -> list[Block]:
        """All stretches decoded in one go: short ones cost a call each otherwise."""
        if len(stretches) == 1:
            return read_apart(self, stretches)
        places, rows = [], 0
        for start, stop in stretches:
            first, last = start // EVERY * EVERY, min(-(-stop // EVERY) * EVERY, self.index.rows)
            places.append((rows + start - first, start, stop))
            rows += last - first
        pieces = [d if d.endswith(b"\n") else d + b"\n" for d in self._bytes(stretches)]
        try:
            table = parse(b"".join(pieces), self.header, self._wanted(), self.path)
        except need_pyarrow(self.path).ArrowInvalid:
            table = None
        if table is None or table.num_rows != rows:  # one by one, to say where and what
            return read_apart(self, stretches)
        return [Block([to_numpy(table.column(str(name))) for name in self.names], places)]

    def close(self) -> None:
        """Nothing is held open."""

    def _bytes(self, stretches: Ordered[tuple[int, int]]) -> list[bytes]:
        """The lines of each stretch of rows, from the offset before it to the one after."""
        signature, offsets, found = self.index.signature, self.index.offsets, []
        signature.check(self.path, stretches[0][0])
        with open(self.path, "rb", buffering=0) as file:
            for start, stop in stretches:
                begin = int(offsets[start // EVERY])
                end = int(offsets[min(-(-stop // EVERY), len(offsets) - 1)])
                found.append((os.pread(file.fileno(), end - begin, begin), end - begin, start))
        signature.check(self.path, stretches[0][0])
        for data, size, start in found:
            if len(data) != size:
                raise DataError(f"{self.path} ends short near row {start}.")
        return [data for data, _, _ in found]

    def _decode(self, data: bytes, first: int) -> Any:
        try:
            return parse(data, self.header, self._wanted(), self.path)
        except need_pyarrow(self.path).ArrowInvalid as error:
            raise self._diagnosis(data, first, str(error)) from None

    def _wanted(self) -> dict[str, Any]:
        arrow = need_pyarrow(self.path)
        kinds = {"integer": arrow.int64(), "number": arrow.float64()}
        return {
            str(name): arrow.bool_() if name in self.flags else kinds[self.types[name]]
            for name in self.names
        }

    def _diagnosis(self, data: bytes, first: int, message: str) -> DataError:
        """Where the first bad field is; slow, and only run when there is one."""
        lines = io.StringIO(data.decode("utf-8", errors="replace"), newline="")
        rows = csv.reader(lines, delimiter=_delimiter(self.path))
        try:
            return self._first_bad(rows, first) or DataError(
                f"{self.path}, in the rows from {first} on: {message}"
            )
        except csv.Error as error:
            return DataError(f"{self.path}, in the rows from {first} on: {error}; {message}")

    def _first_bad(self, rows: Iterator[list[str]], first: int) -> DataError | None:
        for row, fields in enumerate((fields for fields in rows if fields), start=first):
            if len(fields) != len(self.header):
                return DataError(
                    f"{self.path}, row {row}: {len(fields)} fields, but the header names "
                    f"{len(self.header)}."
                )
            for name in self.names:
                value = fields[self.header.index(str(name))]
                whole = self.types[name] == "integer"
                if not _reads(value, whole) and name not in self.flags:
                    if whole and _reads(value, False):
                        return DataError(
                            f"{self.path}, row {row}, column {name!r}: {value!r} is no whole "
                            "number, but a lone column that begins with whole numbers is read as "
                            f"indices: name it in a list, [{name!r}], to read measurements."
                        )
                    return no_number(self.path, row, name, value, "mend the file")
        return None


def open_csv(path: Path, selection: Selection, cache: Path | None) -> CsvTable:
    """Index a file and look at its first rows.

    Raises:
        DataError: a column is missing or holds text; the file has no rows; a group comes back.
    """
    arrow = need_pyarrow(path)
    header, begin = _header(path)
    named = [*selection.names, *([] if selection.group is None else [selection.group])]
    find(named, header, path)
    index = indexed(
        path,
        f"csv {selection.group!r}",
        cache,
        lambda signature: _build(path, header, begin, selection.group, signature),
    )
    table = CsvTable(path, index, header, selection.names, {})
    if not index.rows:
        return table
    try:
        (lines,) = table._bytes([(0, 1)])
        first = parse(lines, header, dict.fromkeys(map(str, table.names)), path)
    except arrow.ArrowInvalid:
        table.types = dict.fromkeys(table.names, "number")
        table.read(0, 1)  # says where and what
        raise
    columns = {name: first.column(str(name)) for name in table.names}
    table.types = {
        name: _type(arrow, column, name, selection, path) for name, column in columns.items()
    }
    booleans = [n for n, column in columns.items() if arrow.types.is_boolean(column.type)]
    table.flags = frozenset(booleans)
    return table


def _type(arrow: Any, column: Any, name: Name, selection: Selection, path: Path) -> Type:
    kinds = arrow.types
    if kinds.is_integer(column.type) or kinds.is_boolean(column.type):
        return "integer" if name in selection.typed else "number"
    if kinds.is_floating(column.type) or kinds.is_null(column.type):
        return "number"
    for row, value in enumerate(column.to_pylist()):
        if value is not None and not _reads(str(value), False):
            raise no_number(path, row, name, str(value), "choose columns of numbers")
    return "number"


def parse(data: bytes, header: list[str], wanted: dict[str, Any], path: Path) -> Any:
    """The ``wanted`` columns (name to type, None to find it out) of whole lines of CSV."""
    from pyarrow import BufferReader, csv

    # One thread here: whoever reads ahead parses several stretches side by side.
    reader = csv.open_csv(
        BufferReader(data),
        read_options=csv.ReadOptions(
            column_names=header, use_threads=False, block_size=len(data) + 1
        ),
        parse_options=csv.ParseOptions(delimiter=_delimiter(path)),
        convert_options=csv.ConvertOptions(
            include_columns=list(wanted),
            column_types={name: kind for name, kind in wanted.items() if kind is not None},
        ),
    )
    return reader.read_all()


def _delimiter(path: Path) -> str:
    return "\t" if path.suffix.lower() == ".tsv" else ","


def _reads(value: str, whole: bool) -> bool:
    if value.strip() in ("", "NA", "N/A", "NULL", "null", "NaN", "nan"):
        return True
    try:
        int(value) if whole else float(value)
    except ValueError:
        return False
    return True


def _header(path: Path) -> tuple[list[str], int]:
    """The columns' names, and the byte where the rows begin."""
    try:
        with open(path, "rb") as file:
            line = file.readline(1 << 20)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text: decompress or convert it first.") from None
    try:
        fields = next(csv.reader([text], delimiter=_delimiter(path)), [])
    except csv.Error as error:
        raise DataError(f"{path} has no header of column names: {error}.") from None
    if not fields:
        raise DataError(f"{path} is empty: a CSV file begins with the names of its columns.")
    if "\r" in text.rstrip("\r\n"):
        raise DataError(f"{path} ends its lines with carriage returns alone: convert it to \\n.")
    return [name.strip() for name in fields], len(line)


def _build(
    path: Path, header: list[str], begin: int, group: Name | None, signature: Signature
) -> Index:
    """One pass over the file: where every `EVERY`-th row begins, and the documents."""
    groups = None if group is None else Groups(path, group)
    offsets: list[np.ndarray[Any, np.dtype[np.int64]]] = []
    rows = 0
    for base, data in _blocks(path, begin):
        places = _row_offsets(data, path, rows)
        offsets.append(base + places[-rows % EVERY :: EVERY])
        if groups is not None and len(places):
            groups.add(_runs(data, header, group, path, rows))
        rows += len(places)
    ends = np.array([signature.size], dtype=np.int64)
    starts = np.zeros(1, dtype=np.int64) if groups is None else groups.starts()
    return Index(
        signature,
        rows,
        starts,
        [] if groups is None else groups.keys,
        np.concatenate([*offsets, ends]),
    )


def _blocks(path: Path, begin: int) -> Iterator[tuple[int, bytes]]:
    """The rows in blocks of whole lines, each with the byte where it begins."""
    with open(path, "rb") as file:
        file.seek(begin)
        rest = b""
        while block := file.read(BLOCK):
            data = rest + block
            end = data.rfind(b"\n") + 1
            yield begin, data[:end]
            begin += end
            rest = data[end:]
        if rest:
            yield begin, rest


def _row_offsets(data: bytes, path: Path, row: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Where the rows begin in whole lines; empty lines are no rows."""
    text = np.frombuffer(data, dtype=np.uint8)
    ends = np.flatnonzero(text == ord("\n"))
    if len(text) and text[-1] != ord("\n"):
        ends = np.append(ends, len(text))
    begins = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64) if len(ends) else ends
    if b'"' in data:
        before = np.cumsum(text == ord('"'))
        odd = np.flatnonzero(before[np.maximum(ends, 1) - 1] % 2)
        if len(odd):
            raise DataError(
                f"{path}, row {row + int(odd[0])}: a quoted field goes on over the end of its "
                "line; a file with such fields cannot be read by stretches. Remove them, or "
                "write Parquet."
            )
    filled = ends - begins
    blank = (filled == 0) | ((filled == 1) & (text[np.minimum(begins, len(text) - 1)] == 13))
    offsets: np.ndarray[Any, np.dtype[np.int64]] = begins[~blank]
    return offsets


def _runs(
    data: bytes, header: list[str], group: Name | None, path: Path, row: int
) -> Iterator[tuple[Any, int]]:
    """The runs of equal groups in whole lines: (value, first row)."""
    arrow = need_pyarrow(path)
    try:
        column = parse(data, header, {str(group): arrow.string()}, path).column(0)
    except arrow.ArrowInvalid as error:
        raise DataError(f"{path}, in the rows from {row} on: {error}") from None
    yield from runs_of(column, row)


def to_numpy(column: Any) -> np.ndarray[Any, Any]:
    """A pyarrow column of numbers; where values are absent it is floating, with NaN there."""
    from pyarrow import int8, types

    found: np.ndarray[Any, Any] = (
        column.cast(int8()) if types.is_boolean(column.type) else column
    ).to_numpy()
    return found


def runs_of(column: Any, row: int) -> Iterator[tuple[Any, int]]:
    """The runs of equal values in a chunked pyarrow column: (value, first row)."""
    from pyarrow import compute

    for chunk in column.chunks:
        encoded = compute.run_end_encode(chunk)
        ends = encoded.run_ends.to_pylist()
        for value, begin in zip(encoded.values.to_pylist(), [0, *ends[:-1]], strict=True):
            yield value, row + begin
        row += len(chunk)
