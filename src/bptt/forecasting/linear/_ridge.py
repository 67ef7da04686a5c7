"""Ridge regression out of sums over rows, for all strengths of the ridge at once, in float64."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bptt.forecasting.data._tables import Floats

RIDGES = 10.0 ** np.arange(-6, 2.1, 0.75)
"""Of columns of unit deviation, times the number of rows."""


@dataclass(frozen=True)
class Sums:
    """What a regression needs of its rows."""

    count: int
    mean: Floats
    goal: float
    products: Floats
    with_goal: Floats

    @classmethod
    def of(cls, design: Floats, goal: Floats) -> Sums:
        """Sums over all rows, not centred."""
        count = len(design)
        return cls(count, design.sum(axis=0), float(goal.sum()), design.T @ design, design.T @ goal)

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.count + other.count,
            self.mean + other.mean,
            self.goal + other.goal,
            self.products + other.products,
            self.with_goal + other.with_goal,
        )

    def first(self, columns: int) -> Sums:
        """Of the first columns alone."""
        return replace(
            self,
            mean=self.mean[:columns],
            products=self.products[:columns, :columns],
            with_goal=self.with_goal[:columns],
        )


def ridge(sums: Sums) -> tuple[Floats, Floats]:
    """Weights [columns, ridges] and constants [ridges]."""
    n, mean, goal = sums.count, sums.mean / sums.count, sums.goal / sums.count
    if not len(mean):
        return np.zeros((0, len(RIDGES))), np.full(len(RIDGES), goal)
    squares = np.diag(sums.products) / n
    variance = squares - mean**2
    # A column that does not move tells nothing, whatever rounding leaves of it.
    still = variance <= 1e-11 * np.maximum(squares, 1e-300)
    scale = np.where(still, np.inf, np.sqrt(np.where(still, 1.0, variance)))
    products = (sums.products / n - np.outer(mean, mean)) / np.outer(scale, scale)
    values, vectors = np.linalg.eigh(products)
    moved = vectors.T @ ((sums.with_goal / n - mean * goal) / scale)
    weights = vectors @ (moved[:, None] / (np.maximum(values, 0.0)[:, None] + RIDGES))
    weights /= scale[:, None]
    return weights, goal - mean @ weights
