"""``bptt predict``: the forecasts of a run, as a table."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
from rich.markup import escape

from bptt.cli._show import say, show_metrics
from bptt.errors import OptionError
from bptt.forecasting import Forecaster, Metrics, Series, load, read_table, select, sunspots


def run(
    folder: Path, data: Path | None, out: Path, free_run: int | None, missing: str | None
) -> None:
    """Write the predictions for ``data``: the row that each is of, the truth where it is known,
    and the prediction."""
    _check_out(out, data)
    forecaster = load(folder)
    series = read(forecaster, folder, data, missing, free_run)
    if free_run is None:
        predictions = forecaster.predict(series)
        first = forecaster.options.ahead
    else:
        predictions = forecaster.free_run(series, free_run)
        first = len(series) - (free_run if forecaster.input_names else 0)
    _write(out, series, first, predictions)
    _report(out, series, first, predictions, forecaster)


def read(
    forecaster: Forecaster,
    folder: Path,
    data: Path | None,
    missing: str | None,
    free_run: int | None = None,
    command: str = "predict",
) -> Series:
    """The series that a run's forecaster reads: DATA, or the carried one if it was fitted on it."""
    carried = sunspots()
    if data is None:
        if (forecaster.target_name, forecaster.input_names) != (carried.target_name, ()):
            raise OptionError(
                f"{folder} forecasts {forecaster.target_name!r}: give the DATA, bptt {command} "
                f"{folder} DATA."
            )
        return carried
    # Targets that are not read, in simulation and in a free run with inputs, need not be there.
    simulate = forecaster.options.simulate
    return select(
        read_table(data),
        forecaster.input_names,
        forecaster.target_name,
        "mask" if simulate else missing or forecaster.missing,
        unread=(free_run or 0) if forecaster.input_names else 0,
        absent=simulate,
    )


def _check_out(out: Path, data: Path | None) -> None:
    above = out.absolute().parent
    if data is not None and out.resolve() == data.resolve():
        raise OptionError(f"{out} is the data: name another file for the predictions with --out.")
    if out.is_dir():
        raise OptionError(f"{out} is a folder: name a file for the predictions with --out.")
    if not above.is_dir():
        raise OptionError(f"{out} cannot be written: there is no folder {above}.")
    if not os.access(above, os.W_OK):
        raise OptionError(f"{out} cannot be written: {above} is write-protected.")


def _write(out: Path, series: Series, first: int, predictions: np.ndarray) -> None:
    with open(out, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([series.axis_name, "truth", "prediction"])
        for i, prediction in enumerate(predictions):
            row = first + i
            truth = series.target[row] if row < len(series) else np.nan
            known = repr(float(truth)) if np.isfinite(truth) else ""
            writer.writerow([f"{series.axis_at(row):g}", known, repr(float(prediction))])


def _report(
    out: Path, series: Series, first: int, predictions: np.ndarray, forecaster: Forecaster
) -> None:
    last = first + len(predictions) - 1
    name = series.axis_name
    say(
        f"{len(predictions)} predictions of {escape(series.target_name)}, {name} "
        f"{series.axis_at(first):g} to {series.axis_at(last):g}, written to "
        f"[bold]{escape(str(out))}[/bold]"
    )
    truth = series.target[first : last + 1]
    if np.isfinite(truth).any():
        kind = f"network ({forecaster.options.cell})"
        metrics = Metrics.of(kind, predictions[: len(truth)], truth)
        show_metrics((metrics,), series.target_name, "where the truth is known")
