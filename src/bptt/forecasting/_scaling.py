"""Scaling to zero mean and unit deviation, fitted on the training part only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bptt.errors import DataError
from bptt.forecasting._series import Series
from bptt.forecasting._tables import Floats


@dataclass(frozen=True)
class Scaling:
    """Means and standard deviations, in the data's own units.

    A column that is constant in the training part has deviation 1.

    Attributes:
        input_mean, input_deviation: one number for each input column.
        target_mean, target_deviation: of the target.
    """

    input_mean: tuple[float, ...]
    input_deviation: tuple[float, ...]
    target_mean: float
    target_deviation: float

    @classmethod
    def fit(cls, series: Series, rows: int) -> Scaling:
        """The scaling of the first ``rows`` rows, missing targets left out.

        Raises:
            DataError: all targets in them are missing, or numbers are too large to scale.
        """
        known = series.target[:rows][np.isfinite(series.target[:rows])]
        if not len(known):
            raise DataError(
                f"all of the first {rows} targets {series.target_name!r}, the training part, are "
                "missing."
            )
        inputs = series.inputs[:rows]
        with np.errstate(over="ignore"):  # told below
            return cls._of(inputs, known)

    @classmethod
    def _of(cls, inputs: Floats, known: Floats) -> Scaling:
        means = [float(value) for value in inputs.mean(axis=0)]
        deviations = [_deviation(column) for column in inputs.T]
        found = cls(tuple(means), tuple(deviations), float(known.mean()), _deviation(known))
        if not np.isfinite([*means, *deviations, found.target_mean, found.target_deviation]).all():
            raise DataError("the numbers are too large to scale: give the data in other units.")
        return found

    def features(self, series: Series, simulate: bool) -> Floats:
        """What the network reads, [rows, features]: the inputs and, unless ``simulate``, the
        targets up to now as the last column.

        Where a target is missing the last known one stands in for it; before the first known one
        the training mean does.
        """
        scaled: Floats = (series.inputs - np.array(self.input_mean)) / np.array(
            self.input_deviation
        )
        if simulate:
            return scaled
        return np.column_stack([scaled, _hold(self.scale(series.target))])

    def scale(self, target: Floats) -> Floats:
        """Targets in the network's units."""
        return (target - self.target_mean) / self.target_deviation

    def unscale(self, prediction: Floats) -> Floats:
        """Predictions in the data's own units."""
        return prediction * self.target_deviation + self.target_mean


def _deviation(column: Floats) -> float:
    deviation = float(column.std())
    # A constant column's deviation may be rounding, not zero.
    constant = deviation <= 1e-12 * float(np.abs(column).max(initial=0.0))
    return 1.0 if constant else deviation


def _hold(values: Floats) -> Floats:
    """Missing values replaced by the last known one, by 0 before the first."""
    known = np.isfinite(values)
    last = np.maximum.accumulate(np.where(known, np.arange(len(values)), -1))
    return np.where(last < 0, 0.0, values[last])
