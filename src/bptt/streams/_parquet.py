"""Parquet files: stretches of rows, by cursors that go forward within a row group.

Parquet can be entered at the beginning of a row group only. A cursor stands where the last stretch
ended, so that lanes go on without decoding anything twice; going backwards decodes a row group
from its beginning, which small row groups keep cheap.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from collections.abc import Sequence as Ordered
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bptt.errors import DataError
from bptt.files import shown, why
from bptt.streams._csv import runs_of, to_numpy
from bptt.streams._index import Groups, Index, Integers, Signature, indexed, rows_of
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

AT_ONCE = 8192
"""Rows decoded at a time."""

CURSORS = 64
"""Places where reading can go on; the one longest unused is given up."""


@dataclass
class _Cursor:
    """A place in a row group: ``row`` comes next, beginning with what is ``left``."""

    group: int
    row: int
    batches: Iterator[Any]
    left: Any = None

    def take(self, count: int) -> list[Any]:
        """The next ``count`` rows."""
        found = []
        while count:
            if self.left is None or not self.left.num_rows:
                self.left = next(self.batches)
            part = self.left.slice(0, count)
            self.left = self.left.slice(part.num_rows)
            self.row += part.num_rows
            count -= part.num_rows
            found.append(part)
        return found


@dataclass
class ParquetTable:
    """See `bptt.streams._table.Table`."""

    path: Path
    index: Index
    names: list[Name]
    types: dict[Name, Type]
    bounds: Integers
    forward: bool = True
    _file: Any = None
    _cursors: list[_Cursor] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __reduce__(self) -> Any:
        """To another process goes where the rows lie, not the open file."""
        return ParquetTable, (self.path, self.index, self.names, self.types, self.bounds)

    def read(self, start: int, stop: int) -> Columns:
        """The selected columns of the rows ``start`` to ``stop - 1``."""
        with self._lock:  # a cursor serves one reader
            return self._read(start, stop)

    def _read(self, start: int, stop: int) -> Columns:
        arrow = need_pyarrow(self.path)
        self.index.signature.check(self.path, start)
        found: list[Any] = []
        try:
            for group in range(
                int(np.searchsorted(self.bounds, start, side="right")) - 1,
                int(np.searchsorted(self.bounds, stop, side="left")),
            ):
                low, high = int(self.bounds[group]), int(self.bounds[group + 1])
                found += self._within(group, max(start, low), min(stop, high))
        except (arrow.ArrowException, OSError, StopIteration) as error:
            self._close()
            self.index.signature.check(self.path, start)
            raise DataError(
                f"{self.path} is broken in the rows {start} to {stop - 1}: {error}"
            ) from None
        self.index.signature.check(self.path, start)
        table = arrow.Table.from_batches(found)
        return [to_numpy(table.column(str(name))) for name in self.names]

    def _within(self, group: int, start: int, stop: int) -> list[Any]:
        cursor = self._cursor(group, start)
        if start > cursor.row:
            cursor.take(start - cursor.row)
        return cursor.take(stop - start)

    def _cursor(self, group: int, row: int) -> _Cursor:
        """The nearest cursor at or before ``row``, or a new one."""
        near = [c for c in self._cursors if c.group == group and c.row <= row]
        if near:
            cursor = max(near, key=lambda c: c.row)
            self._cursors.remove(cursor)
        else:
            batches = self._opened().iter_batches(
                AT_ONCE, row_groups=[group], columns=[str(n) for n in self.names], use_threads=False
            )
            cursor = _Cursor(group, int(self.bounds[group]), batches)
        self._cursors = [*self._cursors, cursor][-CURSORS:]
        return cursor

    def _opened(self) -> Any:
        if self._file is None:
            self._file = _open(self.path)
        return self._file

    def read_many(self, stretches: Ordered[tuple[int, int]]) -> list[Block]:
        """`read`, of each."""
        return read_apart(self, stretches)

    def close(self) -> None:
        """Let go of the file; reading opens it again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        self._cursors.clear()
        if self._file is not None:
            _close(self._file)
            self._file = None


def _open(path: Path) -> Any:
    arrow = need_pyarrow(path)
    from pyarrow import parquet

    try:
        # pyarrow takes no names that are not UTF-8, but what Python opened.
        source = path if shown(path) == str(path) else path.open("rb")
    except OSError as error:
        raise DataError(f"{why(error)}.") from None
    try:
        return parquet.ParquetFile(source, buffer_size=1 << 16, pre_buffer=False)
    except (OSError, arrow.ArrowException) as error:
        if not isinstance(source, Path):
            source.close()
        raise DataError(f"{shown(path)} is no whole Parquet file: {_first_line(error)}") from None


def _close(file: Any) -> None:
    """Close a file, and what Python opened for it, which pyarrow by itself leaves open."""
    file.close(force=True)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]


def open_parquet(path: Path, selection: Selection, cache: Path | None) -> ParquetTable:
    """Look at a file's schema, and index its documents.

    Raises:
        DataError: a column is missing or holds no numbers; a group comes back.
    """
    before = Signature.of(path)
    file = _open(path)
    try:
        schema, metadata = file.schema_arrow, file.metadata
        named = [*selection.names, *([] if selection.group is None else [selection.group])]
        find(named, schema.names, path)
        types = {
            name: _type(schema.field(str(name)).type, name, selection, path)
            for name in selection.names
        }
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        rows = metadata.num_rows
        if min(sizes, default=0) < 0 or sum(sizes) != rows:
            raise DataError(
                f"{path} is no whole Parquet file: it says that it has {rows} rows, and that its "
                f"row groups have {sum(sizes)}."
            )

        def build(signature: Signature) -> Index:
            group = selection.group
            groups = None if group is None else _groups(file, path, group)
            return rows_of(rows, signature, groups)

        if selection.group is None:
            index = build(Signature.of(path))
        else:
            index = indexed(path, f"parquet {selection.group!r}", cache, build)
    finally:
        _close(file)
    before.check(path, selection.base)
    bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return ParquetTable(path, index, selection.names, types, bounds)


def _type(kind: Any, name: Name, selection: Selection, path: Path) -> Type:
    from pyarrow import types

    if types.is_integer(kind) or types.is_boolean(kind):
        return "integer" if name in selection.typed else "number"
    if types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    raise no_number(path, selection.base, name, str(kind), "choose columns of numbers")


def _groups(file: Any, path: Path, group: Name) -> Groups:
    import pyarrow

    groups, row = Groups(path, group), 0
    try:
        for batch in file.iter_batches(1 << 16, columns=[str(group)], use_threads=False):
            column = pyarrow.chunked_array([batch.column(0)]).cast(pyarrow.string())
            groups.add(runs_of(column, row))
            row += batch.num_rows
    except (pyarrow.ArrowException, OSError, NotImplementedError) as error:
        kind = file.schema_arrow.field(str(group)).type
        raise no_text(path, str(group), kind, error) from None
    return groups


def no_text(path: Path, column: str, kind: Any, error: Exception) -> DataError:
    """Why a column cannot be read as text."""
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return DataError(
        f"{shown(path)}, column {column!r}, {kind}: it cannot be read as text: {first}."
    )


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A file, as pyarrow has it, which is closed at the end."""
    file = _open(path)
    try:
        yield file
    finally:
        _close(file)


def names_of(path: Path) -> tuple[str, ...]:
    """The columns of a file, in order."""
    with opened(path) as file:
        return tuple(file.schema_arrow.names)
