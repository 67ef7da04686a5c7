"""Tables on disk: CSV and Parquet, read as `bptt.streams` reads them.

Rows are counted from 1, the header of a CSV file not among them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bptt.errors import DataError
from bptt.files import shown
from bptt.streams import Table as Table
from bptt.streams import is_number

Floats = NDArray[np.float64]

Ages = NDArray[np.intp]
"""[rows]: how many rows of its own series come before each."""


def read_table(path: str | Path) -> Table:
    """Open a CSV file (with a header; separated by commas, semicolons or tabs) or a Parquet file.

    Raises:
        DataError: there is no such file, it is empty, or it is of another kind.
        BpttError: pyarrow is not installed.
    """
    table = Table.of(path)
    if all(not name.strip() or is_number(name) for name in table.names):
        raise DataError(
            f"{shown(table.path)} begins with numbers, {', '.join(table.names[:4])}: its first row "
            "must name the columns."
        )
    return table
