"""Columns of numbers: what stands for missing ones, rows before, deviations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bptt.forecasting.data._tables import Ages, Floats


def hold(values: Floats, before: float, age: Ages | None = None) -> Floats:
    """Missing values replaced by the last known one, by ``before`` where there is none; ``age``
    [rows] tells several series apart."""
    known, rows = np.isfinite(values), np.arange(len(values))
    last = np.maximum.accumulate(np.where(known, rows, -1))
    first = 0 if age is None else rows - age
    return np.where(last < first, before, values[last])


def ago(age: Ages, steps: int) -> NDArray[np.intp]:
    """The rows so many steps before each; the first of its series again where there is none."""
    found: NDArray[np.intp] = np.arange(len(age)) - np.minimum(steps, age)
    return found


def deviation(values: Floats) -> float:
    """The standard deviation, of numbers however small: their squares may be no number."""
    largest = float(np.abs(values).max(initial=0.0))
    return float((values / largest).std()) * largest if largest else 0.0


def unit(values: Floats) -> float:
    """The standard deviation, or 1 where it is 0."""
    return deviation(values) or 1.0
