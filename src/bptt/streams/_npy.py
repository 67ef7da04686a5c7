"""NumPy files, mapped into memory: [time], [time, feature], or [time] of named fields."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Ordered
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bptt.errors import DataError, nearest
from bptt.streams._index import Groups, Index, Signature, indexed, rows_of
from bptt.streams._table import (
    Array,
    Block,
    Columns,
    Name,
    Selection,
    Type,
    find,
    no_number,
    read_apart,
)

AT_ONCE = 1 << 16
"""Rows looked at together while indexing."""


@dataclass(frozen=True)
class Header:
    """What the beginning of a file says, so that threads need not read it again: NumPy parses it
    with `ast`, which in Python 3.11 only one thread may use at a time."""

    dtype: Any
    shape: tuple[int, ...]
    offset: int
    order: Literal["C", "F"]

    @classmethod
    def of(cls, mapped: Any) -> Header:
        """Of a mapped array."""
        order: Literal["C", "F"] = "C" if mapped.flags.c_contiguous else "F"
        return cls(mapped.dtype, mapped.shape, mapped.offset, order)

    def map(self, path: Path) -> Array:
        """The array of a file, mapped."""
        try:
            return np.memmap(path, self.dtype, "r", self.offset, self.shape, self.order)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read: {error}.") from None


@dataclass
class NpyTable:
    """See `bptt.streams._table.Table`."""

    path: Path
    index: Index
    names: list[Name]
    types: dict[Name, Type]
    header: Header
    _mapped: Array | None = None
    forward: bool = False

    def __reduce__(self) -> Any:
        """To another process goes where the rows lie, not the mapped file."""
        return NpyTable, (self.path, self.index, self.names, self.types, self.header)

    def read(self, start: int, stop: int) -> Columns:
        """The selected columns of the rows ``start`` to ``stop - 1``."""
        self.index.signature.check(self.path, start)
        mapped = self.header.map(self.path) if self._mapped is None else self._mapped
        self._mapped = mapped
        rows = mapped[start:stop]
        if rows.dtype.names is not None:
            found: Columns = [np.array(rows[str(name)]) for name in self.names]
        else:
            found = np.array(rows[:, None] if rows.ndim == 1 else rows[:, _places(self.names)])
        self.index.signature.check(self.path, start)
        return found

    def read_many(self, stretches: Ordered[tuple[int, int]]) -> list[Block]:
        """`read`, of each."""
        return read_apart(self, stretches)

    def close(self) -> None:
        """Let go of the file; reading maps it again."""
        self._mapped = None


def _places(names: list[Name]) -> slice | list[int]:
    """Column numbers, as a slice where they are neighbours: a view, not a gathering."""
    numbers = [int(name) for name in names]
    neighbours = numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return slice(numbers[0], numbers[0] + len(numbers)) if neighbours else numbers


def _map(path: Path) -> Array:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None
    except Exception as error:  # a damaged header is parsed as Python, with errors of many kinds
        raise DataError(f"{path} is no whole .npy file of numbers: {error}.") from None
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} holds several arrays: give one .npy file per array.")
    return array


def open_npy(path: Path, selection: Selection, cache: Path | None) -> NpyTable:
    """Map a file, and index its documents.

    Raises:
        DataError: its shape or dtype is unusable, or a column is missing; a group comes back.
    """
    before = Signature.of(path)
    array = _map(path)
    before.check(path, 0)
    if array.ndim not in (1, 2) or (array.dtype.names is not None and array.ndim != 1):
        raise DataError(
            f"{path} has the shape {list(array.shape)}: expected [time], [time, feature], or "
            "[time] of named fields."
        )
    named = [*selection.names, *([] if selection.group is None else [selection.group])]
    _find(named, array, path)
    types = {name: _type(array, name, selection, path) for name in selection.names}
    group = selection.group
    if group is None:
        index = rows_of(len(array), Signature.of(path))
    else:
        index = indexed(path, f"npy {group!r}", cache, lambda s: _build(array, path, group, s))
    return NpyTable(path, index, selection.names, types, Header.of(array))


def _find(names: list[Name], array: Array, path: Path) -> None:
    if array.dtype.names is not None:
        find(names, list(array.dtype.names), path)
        return
    width = 1 if array.ndim == 1 else array.shape[1]
    for name in names:
        if isinstance(name, bool) or not isinstance(name, int) or not 0 <= name < width:
            known = nearest(str(name), [str(i) for i in range(min(width, 8))])
            raise DataError(
                f"{path} has no column {name!r}: its {width} column(s) have no names, but numbers "
                f"from 0 to {width - 1}.{known if width <= 8 else ''}"
            )


def _column(array: Array, name: Name) -> Array:
    if array.dtype.names is not None:
        return array[str(name)]
    return array if array.ndim == 1 else array[:, int(name)]


def _type(array: Array, name: Name, selection: Selection, path: Path) -> Type:
    dtype = array.dtype if array.dtype.names is None else array.dtype[str(name)]
    if dtype.kind not in "fiub":
        raise no_number(path, 0, name, str(dtype), "choose columns of numbers")
    return "integer" if dtype.kind in "iub" and name in selection.typed else "number"


def _build(array: Array, path: Path, group: Name, signature: Signature) -> Index:
    groups = Groups(path, group)
    column = _column(array, group)
    for start in range(0, len(column), AT_ONCE):
        groups.add(_runs(np.array(column[start : start + AT_ONCE]), start))
    return rows_of(len(array), signature, groups)


def _runs(values: Array, row: int) -> Iterator[tuple[Any, int]]:
    begins = np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1])
    for begin in begins.tolist():
        yield values[begin].item(), row + begin
