"""A series that can be trained on: everything that can be refused is refused here."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bptt.errors import DataError, OptionError
from bptt.forecasting.data._numbers import hold
from bptt.forecasting.data._scaling import Scaling
from bptt.forecasting.data._series import Series
from bptt.forecasting.data._split import Split
from bptt.forecasting.data._units import Units, kinds_for
from bptt.forecasting.linear._seasons import seasons_of
from bptt.forecasting.linear._study import EXACT, Study
from bptt.forecasting.model._options import Options
from bptt.gradients import GradientMethod

FARTHEST = 1e30
"""Deviations that a number may be away from the mean of the training part: the network's numbers
are of 32 bits."""


@dataclass(frozen=True)
class Plan:
    """A series that can be trained on: split, scaled and checked.

    Attributes:
        series: the data, those to test on apart among them, as further series.
        options: how to train.
        split: which rows train, validate and test.
        units: of the target, in which each series is read.
        scaling: fitted on the training part, in these units.
        seasons: periods, in steps.
        study: the linear forms that serve, judged on the validation part.
        method: how the gradient is found.
        missing: how missing targets are treated.
        tested: the name of the data to test on apart, if there are any.
    """

    series: Series
    options: Options
    split: Split
    units: Units
    scaling: Scaling
    seasons: tuple[int, ...]
    study: Study
    method: GradientMethod
    missing: str
    tested: str | None = None

    @cached_property
    def own(self) -> Series:
        """The series, the target in its units."""
        return self.units.own(self.series)


def prepared(series: Series, options: Options, missing: str, test: Series | None) -> Plan:
    """`bptt.forecasting.plan`, whose cell may still be to be chosen."""
    if options.simulate and not series.input_names:
        raise OptionError(
            "simulation predicts from the inputs alone, and there are none: name them with "
            "--inputs, or leave --simulate out."
        )
    horizon = options.ahead
    count, lengths = len(series.begins), [span.stop - span.start for span in series.spans]
    if count > 1 and options.lanes > count:
        raise OptionError(
            f"{options.lanes} lanes are more than the {count} series, each of which is on one lane."
        )
    apart = [] if test is None else [span.stop - span.start for span in test.spans]
    series = series if test is None else series.followed_by(test)
    split = Split.of(
        lengths, horizon, options.validation, options.test, _names(series, count), apart
    )
    for period in options.season or ():
        _check_season(period, max(split.training))
    Scaling.fit(series, split.trains)  # refuses numbers that cannot be scaled
    _check_known(series, split)
    kinds = kinds_for(series, split.trains, options.simulate)
    if not set(series.labels[count:]) <= set(series.labels[:count]):
        kinds = ["common"]  # units of their own would be of the rows that are tested on
    tried, scalings = [], []
    for kind in kinds:
        units = Units.fit(kind, series, split.trains)
        scaling = Scaling.fit(units.own(series), split.trains)
        try:
            _check_near(series, units, scaling, _names(series, count))
        except DataError:
            if kind == "common":
                raise
            continue
        tried.append(units)
        scalings.append(scaling)
    studied = [
        _studied(units.own(series), options, split, scaling)
        for units, scaling in zip(tried, scalings, strict=True)
    ]
    if len(tried) > 1:
        ratios = [
            _ratio(series, units, study) for units, (_, study) in zip(tried, studied, strict=True)
        ]
        best = int(np.argmin(ratios))
    else:
        best = 0
    units, scaling, (seasons, study) = tried[best], scalings[best], studied[best]
    options = options.filled(split.train - horizon * count)
    method = options.gradient_method(split.train - horizon * count)
    tested = None if test is None else test.source
    return Plan(series, options, split, units, scaling, seasons, study, method, missing, tested)


def _studied(
    series: Series, options: Options, split: Split, scaling: Scaling
) -> tuple[tuple[int, ...], Study]:
    """The periods and the linear forms of series in their units."""
    seasons: tuple[int, ...] = ()
    if not options.simulate:
        past = hold(series.target, scaling.target_mean, series.age)
        ends = zip(series.begins, split.training, strict=True)
        pasts = [past[begin : begin + rows] for begin, rows in ends]
        seasons = seasons_of(*pasts) if options.season is None else options.season
    study = Study.of(
        scaling.inputs(series),
        series.target,
        options.ahead,
        split,
        options.simulate,
        seasons,
        options.lags,
    )
    return seasons, study


def _ratio(series: Series, units: Units, study: Study) -> float:
    """The logarithm of the root mean squared error beside that of the last known value, where forms
    were judged; the mean of all series, of which each counts alike."""
    errors = series.target - units.restored(study.rolled(), series)
    last = hold(series.target, float("nan"), series.age)
    rival = series.left_by(last, study.data.horizon)
    ratios = []
    for span in series.spans:
        both = np.isfinite(errors[span]) & np.isfinite(rival[span])
        if (rival[span][both] != 0).any():
            largest = float(np.abs(rival[span][both]).max())
            squares = [float(np.mean((e[span][both] / largest) ** 2)) for e in (errors, rival)]
            ratios.append(0.5 * np.log(max(squares[0], EXACT) / squares[1]))
    return float(np.mean(ratios)) if ratios else 0.0


def _check_season(period: int, rows: int) -> None:
    if period > rows // 2:
        raise OptionError(
            f"season must be at most {rows // 2}, half of the {rows} rows of the training part, "
            f"not {period}."
        )


def _names(series: Series, count: int) -> list[str]:
    """Of all series, for messages; the first ``count`` are not those to test on apart."""
    return [
        label if i < count or not label else f"{label} of the test data"
        for i, label in enumerate(series.labels)
    ]


def _check_known(series: Series, split: Split) -> None:
    known, predicted = np.isfinite(series.target), split.age >= split.horizon
    parts = {
        "training": known[split.trains & predicted],
        "validation": known[split.validation],
    }
    if split.tests:
        parts["test"] = known[split.judged]
    for name, part in parts.items():
        if not part.any():
            raise DataError(
                f"all {len(part)} targets of the {name} part are missing: nothing can be counted."
            )


def _check_near(series: Series, units: Units, scaling: Scaling, names: list[str]) -> None:
    target = scaling.scale(units.own(series).target)
    scaled = np.column_stack([scaling.inputs(series), target])
    far = np.argwhere(np.abs(scaled) > FARTHEST)
    if len(far):
        row, column = far[0]
        which = bisect_right(series.begins, row) - 1
        place = f"row {row - series.begins[which] + 1}"
        if names[which]:
            place += f" of {names[which]}"
        name = [*series.input_names, series.target_name][column]
        value = [*series.inputs[row], series.target[row]][column]
        raise DataError(
            f"{place}, column {name!r}: {value:g} is too large beside the numbers of the "
            "training part: mend it, or remove the row."
        )
