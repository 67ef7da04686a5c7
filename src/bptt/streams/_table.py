"""What the formats share: a table on disk, its columns, and which of them a stream reads."""

from __future__ import annotations

import os
from collections.abc import Sequence as Ordered
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from bptt.errors import BpttError, DataError, OptionError, nearest
from bptt.files import regular, shown
from bptt.streams._index import Index
from bptt.streams._parse import short

Name = str | int
"""A column: by its name, or in an array without names by its number from 0."""

Array = np.ndarray[Any, Any]

Columns = list[Array] | Array
"""The selected columns: a list of [row] arrays, or one array [row, column]."""

Type = Literal["integer", "number"]
"""Whole numbers (and bools), or any numbers."""


@dataclass(frozen=True)
class Selection:
    """The columns that a stream reads.

    Attributes:
        inputs: names, in the order of the features.
        targets: likewise.
        lone_inputs: whether the inputs were given as one name, not a list: whole numbers are then
            indices [time].
        lone_targets: likewise.
        mask: the column that says which targets count, if any.
        group: the column that tells documents apart, if any.
        base: the number that messages give to the first row.
    """

    inputs: tuple[Name, ...]
    targets: tuple[Name, ...]
    lone_inputs: bool
    lone_targets: bool
    mask: Name | None = None
    group: Name | None = None
    base: int = 0

    @property
    def names(self) -> list[Name]:
        """Every column to be decoded, once."""
        flags = () if self.mask is None else (self.mask,)
        return list(dict.fromkeys((*self.inputs, *self.targets, *flags)))

    @property
    def typed(self) -> list[Name]:
        """The columns whose whole numbers are not made floating."""
        lone = (self.inputs if self.lone_inputs else ()) + (
            self.targets if self.lone_targets else ()
        )
        listed = (() if self.lone_inputs else self.inputs) + (
            () if self.lone_targets else self.targets
        )
        flags = () if self.mask is None else (self.mask,)
        return [name for name in (*lone, *flags) if name not in listed]


def select(
    inputs: Name | Ordered[Name],
    targets: Name | Ordered[Name] | None,
    mask: Name | None,
    group: Name | None,
) -> Selection:
    """The selection that a user's names make.

    Raises:
        OptionError: a list is empty, or holds something other than names.
    """
    targets = inputs if targets is None else targets
    sides = []
    for word, given in (("inputs", inputs), ("targets", targets)):
        lone = isinstance(given, (str, int))
        names = (given,) if lone else tuple(given)  # type: ignore[arg-type]  # narrowed by lone
        if not names or not all(isinstance(name, (str, int)) for name in names):
            raise OptionError(f"{word} must name a column or a list of columns, not {given!r}.")
        sides.append((names, lone))
    (read, lone_inputs), (goals, lone_targets) = sides
    return Selection(read, goals, lone_inputs, lone_targets, mask, group)  # type: ignore[arg-type]  # names, as `sides` has them


class Block(NamedTuple):
    """Rows that were decoded together: their columns, and the stretches that lie in them,
    (place in the columns, first row, row after the last). Between these may lie other rows."""

    columns: Columns
    stretches: list[tuple[int, int, int]]

    def apart(self) -> list[Block]:
        """Each stretch by itself."""
        return [
            Block(_rows(self.columns, begin, begin + stop - start), [(0, start, stop)])
            for begin, start, stop in self.stretches
        ]


def _rows(columns: Columns, begin: int, end: int) -> Columns:
    if isinstance(columns, np.ndarray):
        return columns[begin:end]
    return [column[begin:end] for column in columns]


class Table(Protocol):
    """One file, opened."""

    @property
    def path(self) -> Path:
        """Where it lies."""

    @property
    def index(self) -> Index:
        """What one pass over it found out."""

    @property
    def types(self) -> dict[Name, Type]:
        """Of every selected column."""

    @property
    def forward(self) -> bool:
        """Whether reading on is cheaper than reading anywhere."""

    def read(self, start: int, stop: int) -> Columns:
        """The selected columns of the rows ``start`` to ``stop - 1``; absent numbers are NaN.
        Several threads may read, and close, at a time.

        Raises:
            DataError: the file changed, or holds something that is no number.
        """

    def read_many(self, stretches: Ordered[tuple[int, int]]) -> list[Block]:
        """`read`, of several stretches in ascending order, some of them together."""

    def close(self) -> None:
        """Let go of the file; reading opens it again."""


def read_apart(table: Table, stretches: Ordered[tuple[int, int]]) -> list[Block]:
    """`Table.read_many` of a format that gains nothing by decoding stretches together."""
    return [Block(table.read(start, stop), [(0, start, stop)]) for start, stop in stretches]


def check_file(path: Path) -> None:
    """Refuse what cannot be opened as a file.

    Raises:
        DataError: there is nothing, a folder, or what is no file, such as a FIFO.
    """
    regular(path)
    if path.is_dir():
        raise DataError(f"{shown(path)} is a folder: name a file in it.")
    if not path.exists():
        raise DataError(f"there is no file {shown(path)}: check the path.")


def read_at(handle: int, begin: int, end: int) -> bytes:
    """The bytes from ``begin`` up to ``end``, fewer where the file ends; the system reads at most
    2 GiB at a time."""
    pieces = []
    while begin < end and (piece := os.pread(handle, end - begin, begin)):
        pieces.append(piece)
        begin += len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def find(names: list[Name], known: list[str], path: Path) -> None:
    """Refuse columns that a file does not have, or has twice.

    Raises:
        DataError: with the nearest name that there is.
    """
    for name in names:
        if name not in known:
            hint = nearest(str(name), known)
            raise DataError(f"{shown(path)} has no column {name!r}.{hint}")
        if known.count(str(name)) > 1:
            raise DataError(
                f"{shown(path)} has {known.count(str(name))} columns {name!r}: rename them."
            )


def no_number(path: Path, row: int, column: Name, value: object, mend: str) -> DataError:
    """The error for text where numbers belong."""
    where = f"{shown(path)}, row {row}, column {column!r}"
    return DataError(f"{where}: {short(value)} is no number: {mend}.")


def need_pyarrow(path: Path) -> Any:
    """The pyarrow package.

    Raises:
        BpttError: it is not installed.
    """
    try:
        import pyarrow
    except ImportError:
        raise BpttError(
            f"reading {path.name} needs pyarrow: pip install 'bptt[cli]', or pip install pyarrow."
        ) from None
    return pyarrow
