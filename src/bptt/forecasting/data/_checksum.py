"""Which rows of a table a run was trained on, whatever the name of the file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from bptt.forecasting.data._series import Series
from bptt.forecasting.data._split import Mask


def checksum(series: Series, rows: int) -> str:
    """Of the first ``rows`` rows of one series: of the bytes of inputs and target, in float64."""
    columns = np.column_stack([series.inputs[:rows], series.target[:rows]])
    columns[np.isnan(columns)] = np.nan  # all have the same bytes
    return hashlib.sha256(np.ascontiguousarray(columns).tobytes()).hexdigest()


def trained(series: Series, known: Sequence[int]) -> dict[str, tuple[int, str]]:
    """What `seen` needs to know.

    Args:
        series: one or several.
        known: how many rows of each are trained or validated on; the first ones.
    """
    return {
        one.labels[0]: (rows, checksum(one, rows))
        for one, rows in zip(series.each(), known, strict=True)
        if rows
    }


def seen(series: Series, trained: Mapping[str, tuple[int, str]]) -> Mask:
    """The rows [rows] that a run was trained on: those with which a series of the same name begins,
    if they are the same to the last bit.

    Args:
        series: one or several.
        trained: of each series by its name, how many rows, and their `checksum`.
    """
    found = np.zeros(len(series), dtype=np.bool_)
    for one, span in zip(series.each(), series.spans, strict=True):
        rows, expected = trained.get(one.labels[0], (0, ""))
        if 0 < rows <= len(one) and checksum(one, rows) == expected:
            found[span.start : span.start + rows] = True
    return found
