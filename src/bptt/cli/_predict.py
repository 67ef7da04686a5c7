"""``bptt predict``: the forecasts of a run, as a table."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from rich.markup import escape

from bptt import _ending
from bptt.cli._place import check_out, check_outs
from bptt.cli._show import say, show_metrics
from bptt.errors import OptionError
from bptt.files import shown, write_text
from bptt.forecasting import Forecaster, Metrics, Series, load, read_table, select, sunspots


def run(
    folder: Path,
    data: Path | None,
    out: Path,
    force: bool,
    free_run: int | None,
    missing: str | None,
) -> None:
    """Write the predictions for ``data``: the row that each is of, the truth where it is known,
    and the prediction."""
    absent = check_out(out, force, folder, data)
    _ending.note(f"{shown(out)} was not written.")
    forecaster = load(folder)
    series = read(forecaster, folder, data, missing, free_run)
    if free_run is None:
        predictions = forecaster.predict(series)
        first = forecaster.options.ahead
    else:
        predictions = forecaster.free_run(series, free_run)
        first = len(series) - (free_run if forecaster.input_names else 0)
    check_outs(absent, force, folder, data)
    _write(out, series, first, predictions)
    _ending.note(f"{shown(out)} is written.")
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
                f"{shown(folder)} forecasts {forecaster.target_name!r}: give the DATA, bptt "
                f"{command} {shown(folder)} DATA."
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


def _write(out: Path, series: Series, first: int, predictions: np.ndarray) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow([series.axis_name, "truth", "prediction"])
    for i, prediction in enumerate(predictions):
        row = first + i
        truth = series.target[row] if row < len(series) else np.nan
        known = repr(float(truth)) if np.isfinite(truth) else ""
        writer.writerow([f"{series.axis_at(row):g}", known, repr(float(prediction))])
    write_text(out, text.getvalue())


def _report(
    out: Path, series: Series, first: int, predictions: np.ndarray, forecaster: Forecaster
) -> None:
    last = first + len(predictions) - 1
    name = series.axis_name
    say(
        f"{len(predictions)} predictions of {escape(series.target_name)}, {name} "
        f"{series.axis_at(first):g} to {series.axis_at(last):g}, written to "
        f"[bold]{escape(shown(out))}[/bold]"
    )
    truth = series.target[first : last + 1]
    if np.isfinite(truth).any():
        kind = f"network ({forecaster.options.cell})"
        metrics = Metrics.of(kind, predictions[: len(truth)], truth)
        show_metrics((metrics,), series.target_name, "where the truth is known")
