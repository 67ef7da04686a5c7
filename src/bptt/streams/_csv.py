"""CSV files: an offset index, and any stretch of rows decoded through pyarrow."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from collections.abc import Sequence as Ordered
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bptt.errors import DataError
from bptt.files import shown
from bptt.streams._index import Groups, Index, Signature, indexed
from bptt.streams._parse import Form, bad_line, form_of, short
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
    read_at,
)

EVERY = 32
"""Rows between two offsets: what decoding a stretch may waste at either end."""

BLOCK = 1 << 22
"""Bytes looked at together while indexing."""


@dataclass
class CsvTable:
    """See `bptt.streams._table.Table`.

    Attributes:
        form: how its lines are read.
        flags: the columns of true and false.
        base: the number that messages give to the first row.
    """

    path: Path
    index: Index
    form: Form
    names: list[Name]
    types: dict[Name, Type]
    flags: frozenset[Name] = frozenset()
    base: int = 0
    forward: bool = False

    def read(self, start: int, stop: int) -> Columns:
        """The selected columns of the rows ``start`` to ``stop - 1``."""
        low, high = start // EVERY, -(-stop // EVERY)
        first, last = low * EVERY, min(high * EVERY, self.index.rows)
        (data,) = self._bytes([(start, stop)])
        columns = self._decode(data, first)
        rows = min(map(len, columns.values()))
        if rows != last - first:
            raise DataError(
                f"{shown(self.path)}, rows {self.base + first} to {self.base + last - 1}: {rows} "
                f"rows are where {last - first} lines are: a line holds something other than one "
                "row."
            )
        return [to_numpy(columns[str(n)].slice(start - first, stop - start)) for n in self.names]

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
            columns = self.form.parse(b"".join(pieces), self._wanted())
        except need_pyarrow(self.path).ArrowInvalid:
            return read_apart(self, stretches)  # one by one, to say where and what
        if any(len(column) != rows for column in columns.values()):
            return read_apart(self, stretches)
        return [Block([to_numpy(columns[str(name)]) for name in self.names], places)]

    def close(self) -> None:
        """Nothing is held open."""

    def _bytes(self, stretches: Ordered[tuple[int, int]]) -> list[bytes]:
        """The lines of each stretch of rows, from the offset before it to the one after."""
        signature, offsets, found = self.index.signature, self.index.offsets, []
        signature.check(self.path, self.base + stretches[0][0])
        with open(self.path, "rb", buffering=0) as file:
            for start, stop in stretches:
                begin = int(offsets[start // EVERY])
                end = int(offsets[min(-(-stop // EVERY), len(offsets) - 1)])
                found.append((read_at(file.fileno(), begin, end), end - begin, start))
        signature.check(self.path, self.base + stretches[0][0])
        for data, size, start in found:
            if len(data) != size:
                raise DataError(f"{shown(self.path)} ends short near row {self.base + start}.")
        return [data for data, _, _ in found]

    def _decode(self, data: bytes, first: int) -> dict[str, Any]:
        try:
            return self.form.parse(data, self._wanted())
        except need_pyarrow(self.path).ArrowInvalid as error:
            raise self._diagnosis(data, first, error) from None

    def _wanted(self) -> dict[str, Any]:
        arrow = need_pyarrow(self.path)
        kinds = {"integer": arrow.int64(), "number": arrow.float64()}
        return {
            str(name): arrow.bool_() if name in self.flags else kinds[self.types[name]]
            for name in self.names
        }

    def _parses(self, lines: Ordered[bytes], **wanted: Any) -> bool:
        try:
            self.form.parse(b"".join(lines), wanted or self._wanted())
        except need_pyarrow(self.path).ArrowInvalid:
            return False
        return True

    def _diagnosis(self, data: bytes, first: int, error: Exception) -> DataError:
        """Where the first bad field is: half of the lines is parsed again, and half of those."""
        lines = [
            line
            for line in data.splitlines(keepends=True)
            if self.form.single or line.strip(b"\r\n")
        ]
        low, high = 0, len(lines)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._parses(lines[low:middle]) else (low, middle)
        line = b"".join(lines[low : low + 1])
        fields = self.form.fields(lines[low]) if lines else None
        if fields is None or len(fields) != len(self.form.header):
            return DataError(bad_line(self.form, self.path, line, self.base + first + low))
        for name, kind in self._wanted().items():
            if not self._parses([lines[low]], **{name: kind}):
                value = fields[self.form.header.index(name)]
                return self._no_number(first + low, lines[low], name, value)
        return DataError(f"{shown(self.path)}, in the rows from {self.base + first} on: {error}")

    def _no_number(self, row: int, line: bytes, name: str, value: str) -> DataError:
        """What is wrong with a field."""
        whole = self.types[name] == "integer" and name not in self.flags
        if whole and self._parses([line], **{name: need_pyarrow(self.path).float64()}):
            return DataError(
                f"{shown(self.path)}, row {self.base + row}, column {name!r}: {short(value)} is no "
                "whole number, but a lone column that begins with whole numbers is read as "
                f"indices: name it in a list, [{name!r}], to read measurements."
            )
        return no_number(self.path, self.base + row, name, value, _mend(value))


def _mend(value: str) -> str:
    if "\ufffd" in value:
        return "these bytes are no UTF-8 text, convert the file"
    if re.fullmatch(r"\s*[+-]?\d+,\d+\s*", value, re.ASCII):
        return "write numbers with a decimal point"
    return "correct or remove it, or choose other columns"


def open_csv(path: Path, selection: Selection, cache: Path | None) -> CsvTable:
    """Index a file and look at its first rows.

    Raises:
        DataError: a column is missing or holds text; the file has no rows; a group comes back.
    """
    arrow = need_pyarrow(path)
    before = Signature.of(path)
    form = form_of(path)
    named = [*selection.names, *([] if selection.group is None else [selection.group])]
    find(named, list(form.header), path)
    index = indexed(
        path,
        f"csv {selection.group!r}",
        cache,
        lambda signature: _build(path, form, selection, signature),
    )
    before.check(path, selection.base)
    table = CsvTable(path, index, form, selection.names, {}, base=selection.base)
    if not index.rows:
        table.types = dict.fromkeys(table.names, "number")
        return table
    try:
        (lines,) = table._bytes([(0, 1)])
        first = form.parse(lines, dict.fromkeys(map(str, table.names)))
    except arrow.ArrowInvalid:
        table.types = dict.fromkeys(table.names, "number")
        table.read(0, 1)  # says where and what
        raise
    columns = {name: first[str(name)] for name in table.names}
    table.types = {name: _type(arrow, columns[name], name, selection) for name in table.names}
    booleans = [n for n, column in columns.items() if arrow.types.is_boolean(column.type)]
    table.flags = frozenset(booleans)
    return table


def _type(arrow: Any, column: Any, name: Name, selection: Selection) -> Type:
    kinds = arrow.types
    if kinds.is_integer(column.type) or kinds.is_boolean(column.type):
        return "integer" if name in selection.typed else "number"
    return "number"


def _build(path: Path, form: Form, selection: Selection, signature: Signature) -> Index:
    """One pass over the file: where every `EVERY`-th row begins, and the documents."""
    group = selection.group
    groups = None if group is None else Groups(path, group)
    offsets: list[np.ndarray[Any, np.dtype[np.int64]]] = []
    end = _end(path, form, signature.size)
    rows = 0
    for base, data in _blocks(path, form.begin, end):
        places = _row_offsets(data, path, form.single, selection.base + rows)
        offsets.append(base + places[-rows % EVERY :: EVERY])
        if groups is not None and len(places):
            groups.add(_runs(data, form, group, path, rows))
        rows += len(places)
    ends = np.array([end], dtype=np.int64)
    starts = np.zeros(1, dtype=np.int64) if groups is None else groups.starts()
    return Index(
        signature,
        rows,
        starts,
        [] if groups is None else groups.keys,
        np.concatenate([*offsets, ends]),
    )


def _end(path: Path, form: Form, size: int) -> int:
    """The byte where the rows end: empty lines at the end of a file are no rows."""
    blank = b" \t\r\n" if form.single else b"\r\n"
    with open(path, "rb") as file:
        while size > form.begin:
            begin = max(size - BLOCK, form.begin)
            kept = len(os.pread(file.fileno(), size - begin, begin).rstrip(blank))
            size = begin + kept
            if kept:
                break
    return size


def _blocks(path: Path, begin: int, end: int) -> Iterator[tuple[int, bytes]]:
    """The rows in blocks of whole lines, each with the byte where it begins."""
    with open(path, "rb") as file:
        file.seek(begin)
        rest = b""
        while block := file.read(min(BLOCK, end - begin - len(rest))):
            data = rest + block
            whole = data.rfind(b"\n") + 1
            yield begin, data[:whole]
            begin += whole
            rest = data[whole:]
        if rest:
            yield begin, rest


def _row_offsets(
    data: bytes, path: Path, single: bool, row: int
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Where the rows begin in whole lines; empty ones are none, unless there is a single column."""
    text = np.frombuffer(data, dtype=np.uint8)
    ends = np.flatnonzero(text == ord("\n"))
    if len(text) and text[-1] != ord("\n"):
        ends = np.append(ends, len(text))
    begins = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64) if len(ends) else ends
    filled = ends - begins
    blank = (filled == 0) | ((filled == 1) & (text[np.minimum(begins, len(text) - 1)] == 13))
    blank &= not single
    if b'"' in data:
        before = np.cumsum(text == ord('"'))
        odd = np.flatnonzero(before[np.maximum(ends, 1) - 1] % 2)
        if len(odd):
            there = row + int(np.count_nonzero(~blank[: int(odd[0])]))
            raise DataError(
                f"{shown(path)}, row {there}: a quote is not closed in its line. Close "
                "it; a file whose fields go on over the ends of lines cannot be read by stretches: "
                "write it as Parquet."
            )
    offsets: np.ndarray[Any, np.dtype[np.int64]] = begins[~blank]
    return offsets


def _runs(
    data: bytes, form: Form, group: Name | None, path: Path, row: int
) -> Iterator[tuple[Any, int]]:
    """The runs of equal groups in whole lines: (value, first row)."""
    arrow = need_pyarrow(path)
    try:
        column = form.parse(data, {str(group): arrow.string()})[str(group)]
    except arrow.ArrowInvalid:
        raise DataError(bad_line(form, path, data, row)) from None
    yield from runs_of(column, row)


def to_numpy(column: Any) -> np.ndarray[Any, Any]:
    """A pyarrow column of numbers; where values are absent it is floating, with NaN there."""
    from pyarrow import float64, int8, types

    if types.is_boolean(column.type):
        column = column.cast(int8())
    elif types.is_decimal(column.type):
        column = column.cast(float64())
    found: np.ndarray[Any, Any] = column.to_numpy()
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
