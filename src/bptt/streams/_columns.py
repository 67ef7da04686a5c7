"""Whole columns of a table in memory, through the same readers as streams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bptt.errors import DataError
from bptt.files import shown
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
        opener = open_csv if self.path.suffix.lower() in CSV else open_parquet
        table = opener(self.path, selection, None)
        try:
            rows = table.index.rows
            found = table.read(0, rows) if rows else [np.empty(0) for _ in names]
        finally:
            table.close()
        self.signature.check(self.path, FIRST)
        return [column.astype(np.float64) for column in found]
