"""What a CSV file is: its header, what separates its columns, what is a number and what is missing.

Numbers are those of pyarrow: ASCII digits, a point, an exponent; also ``inf`` and ``nan``.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bptt.errors import DataError
from bptt.files import shown

LONGEST_HEADER = 1 << 20
"""Bytes of a first line."""

LARGEST = 1 << 30
"""Bytes that pyarrow parses together: it counts them in 32 bits."""

WORDS = ("", "NA", "na", "N/A", "n/a", "#N/A", "NaN", "nan", "NAN", "NULL", "Null", "null", "None",
         "none", "NONE")  # fmt: skip
"""What stands for a missing number, by itself or between two blanks."""

NUMBER = re.compile(
    r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf(?:inity)?|nan)", re.ASCII | re.IGNORECASE
)


def is_number(text: str) -> bool:
    """Whether a field is a number."""
    return NUMBER.fullmatch(text.strip()) is not None


@dataclass(frozen=True)
class Form:
    """How the lines of a file are read.

    Attributes:
        header: the columns' names, in order.
        begin: the byte where the rows begin.
        mark: what separates the columns.
    """

    header: tuple[str, ...]
    begin: int
    mark: str

    @property
    def single(self) -> bool:
        """Whether there is but one column: an empty line is a missing number then."""
        return len(self.header) == 1

    def parse(self, data: bytes, wanted: dict[str, Any]) -> dict[str, Any]:
        """Columns of whole lines, as pyarrow has them.

        Args:
            data: the lines.
            wanted: the columns' names, each with its type, None to find it out.

        Raises:
            pyarrow.ArrowInvalid: a line is not as it should be.
        """
        from pyarrow import BufferReader
        from pyarrow import csv as arrow

        # By their places: other columns may share a name.
        places = {name: str(self.header.index(name)) for name in wanted}
        # One thread here: whoever reads ahead parses several stretches side by side.
        reader = arrow.open_csv(
            BufferReader(data),
            read_options=arrow.ReadOptions(
                column_names=[str(place) for place in range(len(self.header))],
                use_threads=False,
                block_size=min(len(data) + 1, LARGEST),
            ),
            parse_options=arrow.ParseOptions(
                delimiter=self.mark, ignore_empty_lines=not self.single
            ),
            convert_options=arrow.ConvertOptions(
                include_columns=list(places.values()),
                column_types={places[n]: kind for n, kind in wanted.items() if kind is not None},
                null_values=[
                    f"{a}{word}{b}" for word in WORDS for a in ("", " ") for b in ("", " ")
                ],
            ),
        )
        table = reader.read_all()
        return {name: table.column(place) for name, place in places.items()}

    def fields(self, line: bytes) -> list[str] | None:
        """The fields of one line; None where it is none of CSV."""
        text = line.decode("utf-8", errors="replace")
        try:
            return next(csv.reader([text], delimiter=self.mark, strict=True), [])
        except csv.Error:
            return None


def form_of(path: Path) -> Form:
    """Read the header of a file.

    Raises:
        DataError: there is none that names the columns.
    """
    try:
        with open(path, "rb") as file:
            line = file.readline(LONGEST_HEADER + 1)
    except OSError as error:
        raise DataError(f"{shown(path)} cannot be read: {error.strerror or error}.") from None
    if len(line) > LONGEST_HEADER:
        raise DataError(
            f"{shown(path)} has a first line of more than {LONGEST_HEADER} bytes: it must be the "
            "names of the columns."
        )
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(
            f"{shown(path)} is not UTF-8 text: decompress or convert it first."
        ) from None
    if not line:
        raise DataError(f"{shown(path)} is empty: a CSV file begins with the names of its columns.")
    if not text.strip():
        raise DataError(
            f"{shown(path)} begins with a blank line: its first line must name the columns."
        )
    if "\r" in text.rstrip("\r\n"):
        raise DataError(
            f"{shown(path)} ends its lines with carriage returns alone: convert it to \\n."
        )
    return Form(_names(text, path), len(line), _mark(text, path))


def _names(text: str, path: Path) -> tuple[str, ...]:
    try:
        rows = csv.reader([text.rstrip("\r\n")], delimiter=_mark(text, path), strict=True)
        return tuple(name.strip() for name in next(rows))
    except csv.Error:
        raise DataError(
            f"{shown(path)}: a quote in its first line is not closed, or stands within a name: "
            "write the names of the columns without quotes, or each between two."
        ) from None


def _mark(text: str, path: Path) -> str:
    """What separates the columns: what the header has most of outside quotes."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    return max(",;\t", key=re.sub(r'"[^"]*"', "", text).count)


def short(value: object, most: int = 60) -> str:
    """A value as messages show it."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


def bad_line(form: Form, path: Path, data: bytes, row: int) -> str:
    """What is wrong with the first line, of rows from ``row`` on, that has other fields than the
    header names."""
    for line in data.splitlines(keepends=True):
        if not form.single and not line.strip(b"\r\n"):
            continue
        fields = form.fields(line)
        if fields is None:
            return (
                f"{shown(path)}, row {row}: a quote is not closed, or a field is longer than "
                f"{csv.field_size_limit()} characters: mend the line."
            )
        if len(fields) != len(form.header):
            return (
                f"{shown(path)}, row {row}: {len(fields)} fields, but the header names "
                f"{len(form.header)}."
            )
        row += 1
    return f"{shown(path)}: the rows before {row} cannot be read as CSV."
