"""Scaling to zero mean and unit deviation, fitted on the training part only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bptt.errors import DataError
from bptt.forecasting.data._numbers import deviation, hold
from bptt.forecasting.data._series import Series
from bptt.forecasting.data._split import Mask
from bptt.forecasting.data._tables import Floats

LARGEST = 1e150
"""Numbers that are larger have no squares."""


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
    def fit(cls, series: Series, rows: int | Mask) -> Scaling:
        """The scaling of the first ``rows`` rows, or of those where it is true [rows]; missing
        targets are left out.

        Raises:
            DataError: all targets in them are missing, or numbers are too large to scale.
        """
        chosen = slice(rows) if isinstance(rows, int) else rows
        target = series.target[chosen]
        known = target[np.isfinite(target)]
        if not len(known):
            raise DataError(
                f"all of the first {len(target)} targets {series.target_name!r}, the training "
                "part, are missing."
            )
        inputs = series.inputs[chosen]
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

    def inputs(self, series: Series) -> Floats:
        """The inputs [rows, columns], scaled."""
        return self.scaled_inputs(series.inputs)

    def scaled_inputs(self, inputs: Floats) -> Floats:
        """Inputs [rows, columns], scaled."""
        scaled: Floats = (inputs - np.array(self.input_mean)) / np.array(self.input_deviation)
        return scaled

    def features(self, series: Series) -> Floats:
        """The inputs and, as the last column, the targets up to now, [rows, columns], scaled.

        Where a target is missing the last known one stands in for it; before the first known one
        the training mean does.
        """
        return np.column_stack(
            [self.inputs(series), hold(self.scale(series.target), 0.0, series.age)]
        )

    def scale(self, target: Floats) -> Floats:
        """Targets in the network's units."""
        return (target - self.target_mean) / self.target_deviation

    def unscale(self, prediction: Floats) -> Floats:
        """Predictions in the data's own units."""
        return prediction * self.target_deviation + self.target_mean


def _deviation(column: Floats) -> float:
    largest = float(np.abs(column).max(initial=0.0))
    if largest > LARGEST:
        return np.inf
    found = deviation(column)
    # A constant column's deviation may be rounding, not zero.
    return 1.0 if found <= 1e-12 * largest else found
