"""Columns of a table as text, as it stands in the file, and which columns hold no numbers."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from bptt.errors import DataError
from bptt.files import shown
from bptt.streams._parquet import no_text, opened
from bptt.streams._parse import WORDS, bad_line, form_of, is_number, short
from bptt.streams._table import find, need_pyarrow

LOOKED_AT = 100
"""The rows of a CSV file that tell whether a column holds numbers."""


def text_of_csv(path: Path, name: str, first: int) -> list[str | None]:
    """A column of a CSV file, without the blanks around each field; None where it is empty.

    Args:
        path: of the file.
        name: of the column.
        first: the number that messages give to the first row.

    Raises:
        DataError: there is no such column, or it holds something other than UTF-8.
    """
    arrow = need_pyarrow(path)
    form = form_of(path)
    find([name], list(form.header), path)
    try:
        column = form.parse(path.read_bytes()[form.begin :], {name: arrow.binary()})[name]
    except arrow.ArrowInvalid:
        raise DataError(bad_line(form, path, path.read_bytes()[form.begin :], first)) from None
    found: list[str | None] = []
    for row, value in enumerate(column.to_pylist()):
        try:
            found.append(value.decode().strip() or None)
        except UnicodeDecodeError:
            raise DataError(
                f"{shown(path)}, row {first + row}, column {name!r}: {short(value)} is no UTF-8 "
                "text: convert the file."
            ) from None
    return found


def text_of_parquet(path: Path, name: str, first: int) -> list[str | None]:
    """A column of a Parquet file; dates and times as ISO 8601 has them, in their own zone.

    Raises:
        DataError: there is no such column, a time is finer than a microsecond, or a zone is not
            known here.
    """
    arrow = need_pyarrow(path)
    with opened(path) as file:
        find([name], file.schema_arrow.names, path)
        try:
            column = file.read(columns=[name]).column(0)
            found: list[str | None] = _plain(column, arrow).to_pylist()
        except (arrow.ArrowException, OSError, NotImplementedError) as error:
            raise no_text(path, name, column.type, error) from None
    return [None if text is None else text.strip() or None for text in found]


def _plain(column: Any, arrow: Any) -> Any:
    """As text; times with no more digits than they need."""
    kind = column.type
    if arrow.types.is_timestamp(kind):
        for unit in ("s", "ms", "us"):
            try:
                return column.cast(arrow.timestamp(unit, kind.tz)).cast(arrow.string())
            except arrow.ArrowInvalid as error:
                if unit == "us" or "lose data" not in str(error):
                    raise
    return column.cast(arrow.string())


def worded_in_csv(path: Path) -> list[str]:
    """The columns of a CSV file that hold something other than numbers in its first rows."""
    form, found = form_of(path), set()
    with open(path, "rb") as file:
        file.seek(form.begin)
        for line in itertools.islice(file, LOOKED_AT):
            for place, value in enumerate(form.fields(line) or ()):
                if value.strip() not in WORDS and not is_number(value):
                    found.add(place)
    return [name for place, name in enumerate(form.header) if place in found]


def worded_in_parquet(path: Path) -> list[str]:
    """The columns of a Parquet file that are of no type of numbers."""
    types = need_pyarrow(path).types
    numbers = (types.is_integer, types.is_boolean, types.is_floating, types.is_decimal)
    with opened(path) as file:
        return [
            field.name
            for field in file.schema_arrow
            if not any(is_of(field.type) for is_of in numbers)
        ]
