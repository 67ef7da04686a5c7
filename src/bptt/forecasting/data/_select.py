"""`select`: the chosen columns of a table, checked, as series."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bptt.errors import DataError, OptionError, listed, one_of
from bptt.files import shown
from bptt.forecasting.data._series import Series
from bptt.forecasting.data._tables import Floats, Table
from bptt.forecasting.data._times import Times, check_order, parsed, uneven
from bptt.streams import is_number

MISSING = ("refuse", "mask")


def select(
    table: Table,
    inputs: tuple[str, ...] = (),
    target: str | None = None,
    missing: Literal["refuse", "mask"] | str = "refuse",
    *,
    time: str | None = None,
    group: str | None = None,
    unread: int = 0,
    absent: bool = False,
) -> Series:
    """Choose the columns of a series, or of several.

    Args:
        table: with the columns.
        inputs: names of the input columns; a missing number in them is always refused.
        target: name of the target column; it may be left out where the table has but one column
            beside those of time and group.
        missing: what a missing or infinite target means: ``"refuse"`` it, or ``"mask"`` it: such
            a target is not counted, and where past targets are inputs the last known one stands
            in for it.
        time: the column of times, dates of ISO 8601 or numbers, which rise within each series; it
            is no input. Default: the one column, beside that of the groups, that holds no numbers,
            if it holds dates from the first row to the last; ``""`` for none.
        group: the column that tells several series of one table apart. The rows of a series stand
            in order; between them may stand those of others.
        unread: the last so many targets of each series may be missing, whatever ``missing`` says.
        absent: whether the table may do without the target column, if it is not read at all.

    Returns:
        The series, in the order of their names. A warning says where times are not equally far
        apart.

    Raises:
        DataError: a column is missing or named twice, a number or time is missing or infinite, or
            times do not rise (with row and column).
        OptionError: ``missing`` is unknown, or a column has two uses.
    """
    one_of(MISSING, missing=missing)
    group = group or None
    times: Times | None = None
    if time is None:
        time, times = _dates(table, {*inputs, *filter(None, (target, group))})
    target = _target(table, target, {time, group})
    _check_uses(inputs, target, time, group)
    goal: Floats
    if absent and inputs and target not in table.names:
        columns = table.columns(inputs)
        goal, missing = np.full(len(columns[0]), np.nan), "mask"
    else:
        *columns, goal = table.columns((*inputs, target))
    where = shown(table.path)
    if not len(goal):
        raise DataError(f"{where} has a header but no rows: it holds no data.")
    if time and times is None:
        times = parsed(table.text(time), where, time)
    labels, order, begins = _groups(table, group, len(goal))
    if not len(order) == len(goal) == len(goal if times is None else times):
        raise DataError(f"{where} has columns of unequal length: a line holds no whole row.")
    axis = np.concatenate([np.arange(1.0, n + 1) for n in np.diff([*begins, len(goal)])])
    series = Series(
        (np.stack(columns, axis=1) if columns else np.empty((len(goal), 0)))[order],
        np.where(np.isfinite(goal), goal, np.nan)[order],
        tuple(inputs),
        target,
        shown(table.path.name),
        axis if times is None else times.clock[order],
        time or "row",
        begins,
        labels,
        group,
        None if times is None else times[order],
    )
    for name, column in zip(inputs, columns, strict=True):
        _refuse_missing(column, np.isfinite(column), where, name, "fill it or remove the row")
    if missing == "refuse":
        mend = "fill it, or leave such targets uncounted with --missing mask"
        allowed = np.isfinite(goal)
        for span in series.spans:
            allowed[order[max(span.stop - unread, span.start) : span.stop]] = True
        _refuse_missing(goal, allowed, where, target, mend)
    if series.times is not None:
        check_order(series.times, series.spans, order, where, series.axis_name)
        told = uneven(series.times, series.spans, series.axis_name)
        if told:
            warnings.warn(f"{where}: {told}", stacklevel=2)
    return series


def _dates(table: Table, used: set[str]) -> tuple[str | None, Times | None]:
    """The one column that holds no numbers, if it holds dates."""
    worded = [name for name in table.worded if name not in used]
    if len(worded) != 1 or table.names.count(worded[0]) != 1:
        return None, None
    try:
        found = parsed(table.text(worded[0]), "", worded[0])
    except DataError:
        return None, None
    return (worded[0], found) if found.dated else (None, None)


def _check_uses(inputs: tuple[str, ...], target: str, time: str | None, group: str | None) -> None:
    if target in inputs:
        raise OptionError(
            f"{target!r} is both an input and the target. In prediction the past targets are "
            "inputs without being named; in simulation they must not be."
        )
    if len(set(inputs)) != len(inputs):
        raise OptionError(f"an input is named twice: {', '.join(inputs)}.")
    for word, name in (("time", time), ("group", group)):
        if name and name in (*inputs, target):
            raise OptionError(
                f"{name!r} is the column of --{word}, and so neither an input nor the target."
            )
    if time and time == group:
        raise OptionError(f"{time!r} cannot be both the column of --time and of --group.")


def _groups(
    table: Table, group: str | None, rows: int
) -> tuple[tuple[str, ...], NDArray[np.intp], tuple[int, ...]]:
    """The names of the series, in order; the rows of the file, series after series; and where each
    begins among them."""
    if not group:
        return ("",), np.arange(rows), (0,)
    texts = table.text(group)
    for row, text in enumerate(texts):
        if text is None:
            raise DataError(
                f"{shown(table.path)}, row {row + 1}, column {group!r}: the group is missing; fill "
                "it or remove the row."
            )
    labels = _ordered({text for text in texts if text is not None})
    place = {label: i for i, label in enumerate(labels)}
    which = np.array([place[text] for text in texts if text is not None], dtype=np.intp)
    order = np.argsort(which, kind="stable")
    begins = np.searchsorted(which[order], np.arange(len(labels)))
    return tuple(labels), order, tuple(int(begin) for begin in begins)


def _ordered(labels: set[str]) -> list[str]:
    """By size where all are numbers, else as text: not in the order of the rows, so that how series
    are interleaved changes nothing."""
    if all(map(is_number, labels)):
        return sorted(labels, key=lambda label: (float(label), label))
    return sorted(labels)


def _target(table: Table, target: str | None, others: set[str | None]) -> str:
    if target is not None:
        return target
    names = [name for name in table.names if name not in others]
    if len(names) == 1:
        return names[0]
    if not names:
        raise DataError(f"{shown(table.path)} has no column beside those of time and group.")
    raise OptionError(
        f"{shown(table.path)} has {len(table.names)} columns: say which one to forecast with "
        f"--target, one of {listed(names)}."
    )


def _refuse_missing(
    column: Floats, allowed: Sequence[bool] | NDArray[np.bool_], where: str, name: str, mend: str
) -> None:
    bad = np.flatnonzero(~np.asarray(allowed))
    if not len(bad):
        return
    what = "missing (or NaN)" if np.isnan(column[bad[0]]) else "infinite"
    more = f" ({len(bad)} such rows)" if len(bad) > 1 else ""
    raise DataError(
        f"{where}, row {bad[0] + 1}, column {name!r}: the number is {what}{more}; {mend}."
    )
