"""Whole columns of a table in memory, through the same readers as streams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bptt.errors import DataError
from bptt.files import shown
from bptt.streams._as_text import (
    text_of_csv,
    text_of_parquet,
    worded_in_csv,
    worded_in_parquet,
)
from bptt.streams._csv import open_csv
from bptt.streams._index import Signature
from bptt.streams._parquet import names_of, open_parquet
from bptt.streams._parse import form_of
from bptt.streams._table import Selection, check_file, need_pyarrow

FIRST = 1
"""The number of the first row in messages; the header of a CSV file is not counted."""

CSV = (".csv", ".tsv", ".txt")
PARQUET = (".parquet", ".pq")

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


@dataclass(frozen=True)
class Table:
    """A table of named columns, of which some can be read together.

    Attributes:
        path: where it lies.
        names: its columns, in order.
        signature: of the file whose names these are.
    """

    path: Path
    names: tuple[str, ...]
    signature: Signature

    @classmethod
    def of(cls, path: str | Path) -> Table:
        """Look at a CSV file (with a header; separated by commas, semicolons or tabs) or a Parquet
        file.

        Raises:
            DataError: there is no such file, it is empty, or it is of another kind.
            BpttError: pyarrow is not installed.
        """
        path = Path(path)
        if path.suffix.lower() not in CSV + PARQUET:
            raise DataError(
                f"{shown(path)} is neither CSV ({', '.join(CSV)}) nor Parquet "
                f"({', '.join(PARQUET)}): convert it, or correct the ending of its name."
            )
        check_file(path)
        need_pyarrow(path)  # here, so that its absence is told before anything is read
        signature = Signature.of(path)
        if not signature.size:
            raise DataError(f"{shown(path)} is empty.")
        names = form_of(path).header if path.suffix.lower() in CSV else names_of(path)
        signature.check(path, FIRST)
        return cls(path, names, signature)

    def columns(self, names: Sequence[str]) -> list[Floats]:
        """Columns of numbers, each [rows], NaN where a number is missing; all of one file, the one
        whose names these are.

        Raises:
            DataError: there is no such column, it holds something other than numbers, or the file
                changed.
        """
        if not names:
            return []
        selection = Selection(tuple(names), tuple(names), False, False, base=FIRST)
        opener = open_csv if self._csv else open_parquet
        table = opener(self.path, selection, None)
        try:
            rows = table.index.rows
            found = table.read(0, rows) if rows else [np.empty(0) for _ in names]
        finally:
            table.close()
        self.signature.check(self.path, FIRST)
        return [column.astype(np.float64) for column in found]

    def text(self, name: str) -> list[str | None]:
        """A column as text [rows], as it stands in the file without blanks around it; None where it
        is missing. Dates and times of Parquet become ISO 8601.

        Raises:
            DataError: there is no such column, it cannot be read as text, or the file changed.
        """
        found = (text_of_csv if self._csv else text_of_parquet)(self.path, name, FIRST)
        self.signature.check(self.path, FIRST)
        return found

    @property
    def worded(self) -> list[str]:
        """The columns that hold something other than numbers; of a CSV file, in its first rows."""
        found = (worded_in_csv if self._csv else worded_in_parquet)(self.path)
        self.signature.check(self.path, FIRST)
        return found

    @property
    def _csv(self) -> bool:
        return self.path.suffix.lower() in CSV
