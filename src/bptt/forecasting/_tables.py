"""Tables on disk: CSV and Parquet, read through pyarrow, every fault named by row and column.

Rows are counted from 1, the header of a CSV file not among them.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bptt.errors import BpttError, DataError, nearest

Floats = NDArray[np.float64]

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})
"""What stands for a missing number in a CSV file, in any case."""

CSV = (".csv", ".tsv", ".txt")
PARQUET = (".parquet", ".pq")


@dataclass(frozen=True)
class Table:
    """A table whose columns are read when they are chosen.

    Attributes:
        path: where it lies.
        names: its columns, in order.
    """

    path: Path
    names: tuple[str, ...]

    def column(self, name: str) -> Floats:
        """One column as numbers [rows], NaN where a number is missing.

        Raises:
            DataError: there is no such column, or it holds something other than numbers.
        """
        if name not in self.names:
            hint = nearest(name, list(self.names))
            raise DataError(f"{self.path.name} has no column {name!r}.{hint}")
        if self.names.count(name) > 1:
            raise DataError(f"{self.path.name} has {self.names.count(name)} columns {name!r}.")
        values = _parquet_column(self.path, name) if _is_parquet(self.path) else self._texts(name)
        return _numbers(values, self.path.name, name)

    def _texts(self, name: str) -> list[Any]:
        from pyarrow import csv as arrow

        index = self.names.index(name)
        placed = [str(i) for i in range(len(self.names))]
        try:
            table = arrow.read_csv(
                self.path,
                arrow.ReadOptions(column_names=placed, skip_rows=1),
                # An empty line is a missing number where there is but one column.
                arrow.ParseOptions(
                    delimiter=_delimiter(self.path), ignore_empty_lines=len(placed) > 1
                ),
                arrow.ConvertOptions(
                    column_types={str(index): "string"},
                    include_columns=[str(index)],
                    strings_can_be_null=False,
                ),
            )
        except Exception as error:
            if "Empty CSV file" in str(error):
                return []
            raise DataError(
                f"{self.path.name} is no well-formed CSV file in UTF-8: {error}"
            ) from error
        values = list(table.column(0).to_pylist())
        while len(placed) == 1 and values and not values[-1].strip():
            values.pop()  # empty lines that end the file
        return values


def read_table(path: str | Path) -> Table:
    """Open a CSV file (with a header; separated by commas, semicolons or tabs) or a Parquet file.

    Raises:
        DataError: there is no such file, it is empty, or it is of another kind.
        BpttError: pyarrow is not installed.
    """
    path = Path(path)
    try:
        import pyarrow  # noqa: F401  # asked for here, so that its absence is told once
    except ImportError as error:
        raise BpttError("reading tables needs pyarrow: pip install 'bptt[cli]'.") from error
    if path.suffix.lower() not in CSV + PARQUET:
        raise DataError(
            f"{path} is neither CSV ({', '.join(CSV)}) nor Parquet ({', '.join(PARQUET)}): convert "
            "it, or correct the ending of its name."
        )
    if not path.exists():
        raise DataError(f"there is no file {path}: check the path.")
    if path.is_dir():
        raise DataError(f"{path} is a folder: name the CSV or Parquet file in it.")
    if not path.stat().st_size:
        raise DataError(f"{path.name} is empty.")
    names = _parquet_names(path) if _is_parquet(path) else _csv_names(path)
    return Table(path, names)


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in PARQUET


def _parquet_names(path: Path) -> tuple[str, ...]:
    from pyarrow import parquet

    try:
        return tuple(parquet.read_schema(path).names)
    except Exception as error:
        raise DataError(f"{path.name} is no readable Parquet file: {error}") from error


def _parquet_column(path: Path, name: str) -> list[Any]:
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path).read(columns=[name])
    except Exception as error:
        raise DataError(f"{path.name} is no readable Parquet file: {error}") from error
    return list(table.column(0).to_pylist())


def _delimiter(path: Path) -> str:
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        header = file.readline()
    return max(",;\t", key=header.count)


def _csv_names(path: Path) -> tuple[str, ...]:
    delimiter = _delimiter(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            names = next(csv.reader(file, delimiter=delimiter), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path.name} is no CSV file in UTF-8: {error}") from error
    names = [name.strip() for name in names]
    if names and all(_number(name) is not None for name in names):
        raise DataError(
            f"{path.name} begins with numbers, {', '.join(names[:4])}: its first row must name the "
            "columns."
        )
    return tuple(names)


def _number(value: Any) -> float | None:
    """The number that a cell holds, NaN where it is missing, None where it is something else."""
    if value is None:
        return math.nan
    if isinstance(value, str) and value.strip().lower() in MISSING:
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _numbers(values: list[Any], file: str, name: str) -> Floats:
    numbers = [_number(value) for value in values]
    if None in numbers:
        row = numbers.index(None)
        value = values[row]
        comma = isinstance(value, str) and _number(value.replace(",", ".", 1)) is not None
        mend = (
            "write numbers with a decimal point."
            if comma
            else "correct or remove it, or choose another column."
        )
        raise DataError(f"{file}, row {row + 1}, column {name!r}: {value!r} is no number; {mend}")
    return np.asarray(numbers, dtype=np.float64)
