"""Errors in the data's own units."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bptt.forecasting.data._tables import Floats

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
