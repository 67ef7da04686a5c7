"""Errors in the data's own units, and the baselines that they stand beside."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bptt.forecasting._linear import least_squares
from bptt.forecasting._tables import Floats

LEAST = 1e-290
"""Below it squares have few digits."""


@dataclass(frozen=True)
class Metrics:
    """Errors over the counted targets of the test part.

    Attributes:
        name: of the model.
        rmse, mse, mae: root mean squared, mean squared and mean absolute error, in the target's
            units (squared for ``mse``, which is None where no number is so small or so large).
        count: how many targets were counted.
    """

    name: str
    rmse: float
    mse: float | None
    mae: float
    count: int

    @classmethod
    def of(cls, name: str, prediction: Floats, truth: Floats) -> Metrics:
        """Compare where ``truth`` is known."""
        known = np.isfinite(truth)
        error = (prediction - truth)[known]
        largest = float(np.abs(error).max())
        with np.errstate(over="ignore", under="ignore"):
            mse = float(np.mean(error**2))
            mean = float(np.mean(np.abs(error)))
        if largest == 0 or LEAST < mse < math.inf:
            return cls(name, mse**0.5, mse, mean, int(known.sum()))
        # Squares of such errors are 0 or infinite: take those of their shares in the largest.
        shares = error / largest
        rmse = largest * float(np.mean(shares**2)) ** 0.5
        return cls(name, rmse, None, largest * float(np.mean(np.abs(shares))), int(known.sum()))


@dataclass(frozen=True)
class Baseline:
    """A simple model's predictions, scaled: row t is of the target at t + horizon."""

    name: str
    prediction: Floats


def baselines(
    features: Floats, target: Floats, horizon: int, fitted: int, simulate: bool
) -> tuple[Baseline, Baseline]:
    """The simplest model and the linear one, from the same features as the network.

    Args:
        features: [rows, features], scaled; in prediction the past target is the last column.
        target: [rows], scaled, NaN where missing.
        horizon: of the predictions.
        fitted: the first target of the test part; only earlier ones are seen.
        simulate: the training mean and a finite impulse response; else persistence (the last
            known target) and AR, or ARX where there are inputs.
    """
    linear = least_squares(features, target, horizon, fitted)
    if simulate:
        mean = float(np.nanmean(target[:fitted]))
        simplest = Baseline("training mean", np.full(len(features), mean))
        kind = "FIR"
    else:
        simplest = Baseline("persistence", features[:, -1])
        kind = "AR" if features.shape[1] == 1 else "ARX"
    return simplest, Baseline(f"linear {kind}, order {linear.order}", linear(features))
