"""`Series`: the chosen columns of a table, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from bptt.errors import DataError, OptionError, listed, one_of
from bptt.files import shown
from bptt.forecasting._tables import Floats, Table

MISSING = ("refuse", "mask")


@dataclass(frozen=True)
class Series:
    """One target and any number of inputs, row by row.

    Attributes:
        inputs: float64 [rows, columns], finite.
        target: float64 [rows]; NaN where it is missing.
        input_names: of the columns of ``inputs``.
        target_name: of ``target``, for messages, tables and pictures.
        source: the name of the file or data set.
        axis: float64 [rows], what the rows are plotted over.
        axis_name: what ``axis`` is.
    """

    inputs: Floats
    target: Floats
    input_names: tuple[str, ...]
    target_name: str
    source: str
    axis: Floats
    axis_name: str = "row"

    def __len__(self) -> int:
        return len(self.target)

    def rows(self, stop: int) -> Series:
        """The first ``stop`` rows."""
        return Series(
            self.inputs[:stop],
            self.target[:stop],
            self.input_names,
            self.target_name,
            self.source,
            self.axis[:stop],
            self.axis_name,
        )

    def axis_at(self, row: int) -> float:
        """The place of a row on the axis, going on past its end with the last step."""
        if row < len(self):
            return float(self.axis[row])
        step = self.axis[-1] - self.axis[-2] if len(self) > 1 else 1.0
        return float(self.axis[-1] + step * (row - len(self) + 1))


def select(
    table: Table,
    inputs: tuple[str, ...] = (),
    target: str | None = None,
    missing: Literal["refuse", "mask"] | str = "refuse",
    *,
    unread: int = 0,
    absent: bool = False,
) -> Series:
    """Choose the columns of a series.

    Args:
        table: with the columns.
        inputs: names of the input columns; a missing number in them is always refused.
        target: name of the target column; it may be left out where the table has but one.
        missing: what a missing or infinite target means: ``"refuse"`` it, or ``"mask"`` it: such
            a target is not counted, and where past targets are inputs the last known one stands
            in for it.
        unread: the last so many targets may be missing, whatever ``missing`` says.
        absent: whether the table may do without the target column, if it is not read at all.

    Raises:
        DataError: a column is missing or named twice, or a number is missing or infinite (with
            row and column).
        OptionError: ``missing`` is unknown, or the target is among the inputs.
    """
    one_of(MISSING, missing=missing)
    target = _target(table, target)
    if target in inputs:
        raise OptionError(
            f"{target!r} is both an input and the target. In prediction the past targets are "
            "inputs without being named; in simulation they must not be."
        )
    if len(set(inputs)) != len(inputs):
        raise OptionError(f"an input is named twice: {', '.join(inputs)}.")
    goal: Floats
    if absent and inputs and target not in table.names:
        columns = table.columns(inputs)
        goal, missing = np.full(len(columns[0]), np.nan), "mask"
    else:
        *columns, goal = table.columns((*inputs, target))
    if not len(goal):
        raise DataError(f"{shown(table.path)} has a header but no rows: it holds no data.")
    for name, column in zip(inputs, columns, strict=True):
        _refuse_missing(column, table, name, "fill it or remove the row")
    if missing == "refuse":
        mend = "fill it, or leave such targets uncounted with --missing mask"
        _refuse_missing(goal[: len(goal) - unread], table, target, mend)
    goal = np.where(np.isfinite(goal), goal, np.nan)
    whole = np.stack(columns, axis=1) if columns else np.empty((len(goal), 0))
    axis = np.arange(1.0, len(goal) + 1)
    return Series(whole, goal, tuple(inputs), target, shown(table.path.name), axis)


def _target(table: Table, target: str | None) -> str:
    if target is not None:
        return target
    if len(table.names) == 1:
        return table.names[0]
    raise OptionError(
        f"{shown(table.path)} has {len(table.names)} columns: say which one to forecast with "
        f"--target, one of {listed(list(table.names))}."
    )


def _refuse_missing(column: Floats, table: Table, name: str, mend: str) -> None:
    bad = np.flatnonzero(~np.isfinite(column))
    if not len(bad):
        return
    what = "missing (or NaN)" if np.isnan(column[bad[0]]) else "infinite"
    more = f" ({len(bad)} such rows)" if len(bad) > 1 else ""
    raise DataError(
        f"{shown(table.path)}, row {bad[0] + 1}, column {name!r}: the number is {what}{more}; "
        f"{mend}."
    )
