"""``bptt predict``: the forecasts of a run, as a table."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.markup import escape

from bptt import _ending
from bptt.cli._place import check_out, check_outs
from bptt.cli._show import at_work, say, show_metrics
from bptt.errors import OptionError
from bptt.files import shown, write_text
from bptt.forecasting import Forecaster, Metrics, Series, load, read_table, seen, select, sunspots
from bptt.forecasting.data._split import Mask
from bptt.forecasting.data._tables import Floats


@dataclass(frozen=True)
class Forecast:
    """Predictions of one series.

    Attributes:
        series: the series.
        first: the row that the first prediction is of.
        predictions: float64, of that row and those after it, which may lie past the end.
        seen: bool [rows of the series], which of them the run was trained on.
    """

    series: Series
    first: int
    predictions: Floats
    seen: Mask

    @property
    def last(self) -> int:
        """The row that the last prediction is of."""
        return self.first + len(self.predictions) - 1

    def truth(self) -> Floats:
        """The target of each prediction; NaN where it is not known."""
        found = np.full(len(self.predictions), np.nan)
        known = self.series.target[self.first : self.last + 1]
        found[: len(known)] = known
        return found

    def trained_on(self) -> Mask:
        """Whether the run was trained on the row that each prediction is of."""
        found = np.zeros(len(self.predictions), dtype=np.bool_)
        known = self.seen[self.first : self.last + 1]
        found[: len(known)] = known
        return found


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
    found = _forecasts(forecaster, series, free_run)
    at_work()
    check_outs(absent, force, folder, data)
    _write(out, series, found)
    _ending.note(f"{shown(out)} is written.")
    _report(out, series, found, forecaster)


def _forecasts(forecaster: Forecaster, series: Series, free_run: int | None) -> list[Forecast]:
    known = seen(series, forecaster.trained)
    if free_run is None:
        whole = forecaster.predict(series)
        ahead = forecaster.options.ahead
        return [
            Forecast(one, ahead, whole[span], known[span])
            for one, span in zip(series.each(), series.spans, strict=True)
        ]
    found = []
    for one, span in zip(series.each(), series.spans, strict=True):
        first = len(one) - (free_run if forecaster.input_names else 0)
        found.append(Forecast(one, first, forecaster.free_run(one, free_run), known[span]))
    return found


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
        time=forecaster.time_name or "",
        group=forecaster.group_name,
        unread=(free_run or 0) if forecaster.input_names else 0,
        absent=simulate,
    )


def _write(out: Path, series: Series, found: list[Forecast]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    group = [] if series.group_name is None else [series.group_name]
    writer.writerow([*group, series.axis_name, "truth", "prediction"])
    for forecast in found:
        one = forecast.series
        label = [] if series.group_name is None else [one.labels[0]]
        for i, truth in enumerate(forecast.truth()):
            known = repr(float(truth)) if np.isfinite(truth) else ""
            place = one.place(forecast.first + i)
            writer.writerow([*label, place, known, repr(float(forecast.predictions[i]))])
    write_text(out, text.getvalue())


def _report(out: Path, series: Series, found: list[Forecast], forecaster: Forecaster) -> None:
    count = sum(len(forecast.predictions) for forecast in found)
    if series.group_name is None:
        (one,) = found
        first, last = one.series.place(one.first), one.series.place(one.last)
        of = f"{escape(series.axis_name)} {escape(first)} to {escape(last)}"
    else:
        of = f"{len(found)} series of {escape(series.group_name)}"
    say(
        f"{count} predictions of {escape(series.target_name)}, {of}, written to "
        f"[bold]{escape(shown(out))}[/bold]"
    )
    truth = np.concatenate([forecast.truth() for forecast in found])
    prediction = np.concatenate([forecast.predictions for forecast in found])
    trained = np.concatenate([forecast.trained_on() for forecast in found])
    errors = []
    for kind, rows in (("{} that it was trained on", trained), ("other {}", ~trained)):
        rows = rows & np.isfinite(truth)
        if rows.any():
            number = int(rows.sum())
            name = f"on {number} {kind.format('rows' if number != 1 else 'row')}"
            errors.append(Metrics.of(name, prediction[rows], truth[rows]))
    if errors:
        where = f"of {forecaster.name} where the truth is known"
        show_metrics(tuple(errors), series.target_name, where, rivals=False)
