"""Linear models of lagged features by least squares: AR, ARX and finite impulse response.

The prediction of the target at t + horizon is affine in the features at t, t−1, …, t−order+1:
with the past targets among the features it is an ARX model (AR without inputs), without them a
finite impulse response. Each horizon has its own model (the direct forecast).

Order by H. Akaike, A new look at the statistical model identification (1974): the lowest
n·log(RSS/n) + 2k over one common set of rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bptt.errors import DataError
from bptt.forecasting._tables import Floats

MAX_ORDER = 12
ROWS_PER_WEIGHT = 3
"""No order is tried that leaves fewer rows for each of its weights."""


@dataclass(frozen=True)
class Linear:
    """An affine function of lagged features.

    Attributes:
        order: how many lags it reads.
        weight: float64 [order · features], the newest lag first.
        bias: the constant.
    """

    order: int
    weight: Floats
    bias: float

    def __call__(self, features: Floats) -> Floats:
        """Predictions [rows] from ``features`` [rows, features]; row t is of the target at
        t + horizon."""
        return lagged(features, self.order) @ self.weight + self.bias


def lagged(features: Floats, order: int) -> Floats:
    """[rows, order · features], the newest lag first. Before the first row stands the first row
    again, as in `bptt.forecasting.Tapped`."""
    rows = np.arange(len(features))
    return np.concatenate([features[np.maximum(rows - k, 0)] for k in range(order)], axis=1)


def least_squares(
    features: Floats, target: Floats, horizon: int, stop: int, max_order: int = MAX_ORDER
) -> Linear:
    """Fit on the targets before row ``stop``, the order by AIC.

    Args:
        features: [rows, features], finite.
        target: [rows]; where it is NaN it is not counted.
        horizon: how many steps lie between features and target.
        stop: the first target that is not seen.
        max_order: the highest order to try; fewer where the rows are few.

    Raises:
        DataError: the rows do not suffice for order 1.
    """
    most = highest_order(features, target, horizon, stop, max_order)
    common = _rows(target, horizon, most, stop)
    found = [_solve(features, target, horizon, order, common) for order in range(1, most + 1)]
    scores = [_aic(model, features, target, horizon, common) for model in found]
    order = 1 + int(np.argmin(scores))
    return _solve(features, target, horizon, order, _rows(target, horizon, order, stop))


def highest_order(
    features: Floats, target: Floats, horizon: int, stop: int, max_order: int = MAX_ORDER
) -> int:
    """The highest order, up to ``max_order``, that the counted targets before ``stop`` can bear.

    Raises:
        DataError: not even order 1.
    """
    for order in range(max_order, 0, -1):
        weights = 1 + order * features.shape[1]
        if len(_rows(target, horizon, order, stop)) >= ROWS_PER_WEIGHT * weights:
            return order
    usable = len(_rows(target, horizon, 1, stop))
    needed = ROWS_PER_WEIGHT * (1 + features.shape[1])
    raise DataError(
        f"{usable} training rows with a known target are too few for {features.shape[1]} "
        f"feature(s): at least {needed} are needed. Give more rows, or smaller parts to validate "
        "and test on."
    )


def _rows(target: Floats, horizon: int, order: int, stop: int) -> NDArray[np.intp]:
    """The rows that have all lags and whose target is known and lies before ``stop``."""
    rows = np.arange(order - 1, stop - horizon)
    return rows[np.isfinite(target[rows + horizon])]


def _solve(
    features: Floats, target: Floats, horizon: int, order: int, rows: NDArray[np.intp]
) -> Linear:
    design = np.column_stack([lagged(features, order)[rows], np.ones(len(rows))])
    solution = np.linalg.lstsq(design, target[rows + horizon], rcond=None)[0]
    return Linear(order, solution[:-1].astype(np.float64), float(solution[-1]))


def _aic(
    model: Linear, features: Floats, target: Floats, horizon: int, rows: NDArray[np.intp]
) -> float:
    goal = target[rows + horizon]
    error = float(np.mean((model(features)[rows] - goal) ** 2))
    # A perfect fit has no finite AIC; rounding must not choose its order.
    floor = 1e-20 * float(np.mean(goal**2)) + 1e-300
    return len(rows) * float(np.log(max(error, floor))) + 2 * (len(model.weight) + 1)
