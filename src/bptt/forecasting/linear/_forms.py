"""Forms of regression on lags: what each reads, what it is fitted to, and its weights in levels."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bptt.forecasting.data._numbers import ago, deviation, hold, unit
from bptt.forecasting.data._split import TEST, Split
from bptt.forecasting.data._tables import Floats
from bptt.forecasting.linear._linear import restored, transformed
from bptt.forecasting.linear._ridge import Sums, ridge

FORGETTING = (0.0, 0.2, 0.4, 0.6, 0.8)
"""Exponential smoothing keeps so much of its errors from step to step."""


@dataclass(frozen=True)
class Form:
    """One way to predict from lags.

    Attributes:
        transform: of the target, of `TRANSFORMS`.
        differences: distances over which the regressors are differenced, one after another.
        inputs: whether the inputs are read.
        lags: how many steps are.
        smooth: whether nothing is regressed: the weights are those of exponential smoothing.
    """

    transform: str
    differences: tuple[int, ...]
    inputs: bool
    lags: int
    smooth: bool = False

    @property
    def order(self) -> int:
        """How many steps back it looks, the present one among them."""
        return max(self.lags, 1) + sum(self.differences)


class Data:
    """What is regressed: inputs and the target under each transform, scaled."""

    def __init__(
        self, inputs: Floats, target: Floats, horizon: int, split: Split, simulate: bool
    ) -> None:
        self.inputs, self.target, self.horizon, self.simulate = inputs, target, horizon, simulate
        self.split, self.age = split, split.age
        self.known = np.isfinite(target)
        self.columns = inputs.shape[1] + (not simulate)
        seen = target[self.known & split.within(0, TEST)]
        self.spread = deviation(seen)
        low, high = float(seen.min()), float(seen.max())
        self.transforms = ["none"]
        if not simulate and low >= 0 and high > 2 * max(low, 0.0) and self.spread:
            self.transforms.append("root")
        if not simulate and low > 0 and high > 1.5 * low and self.spread:
            self.transforms.append("log")
        self.scales: dict[str, tuple[float, float]] = {}
        self.scaled: dict[str, Floats] = {}
        for transform in self.transforms:
            there = transformed(transform, seen)
            center, scale = float(there.mean()), unit(there)
            self.scales[transform] = center, scale
            self.scaled[transform] = (transformed(transform, target) - center) / scale

    def bearing(self, back: int) -> int:
        """How many targets of the training part have ``back`` rows before what is known."""
        return sum(max(rows - self.horizon - back, 0) for rows in self.split.training)

    def unscaled(self, transform: str, values: Floats) -> Floats:
        """In the data's own units."""
        center, scale = self.scales[transform]
        return restored(transform, values * scale + center)


@dataclass
class Family:
    """The regressions under one transform and one way to take differences."""

    data: Data
    transform: str
    differences: tuple[int, ...]

    def __post_init__(self) -> None:
        data = self.data
        scaled = data.scaled[self.transform]
        held, age = hold(scaled, 0.0, data.age), data.age
        features = data.inputs if data.simulate else np.column_stack([data.inputs, held])
        base = np.zeros(len(scaled))
        back = self.distances()
        for step, own in zip(self.differences, back, strict=True):
            features = features - features[ago(age, step)]
            # What the differences of the target set out from is known at t.
            base = base + held[ago(age, own)] - base[ago(age, own)]
        self.features, self.base = features, base
        self.goal = scaled - base

    def distances(self) -> tuple[int, ...]:
        """Over which the target is differenced: multiples that reach back to what is known."""
        ahead = max(self.data.horizon, 1)
        return tuple(step * -(-ahead // step) for step in self.differences)

    def rows(self, form: Form, start: int, stop: int) -> NDArray[np.intp]:
        """The rows that have all lags, and a known target in the folds from ``start`` up to
        ``stop``."""
        data = self.data
        least = max(form.order - 1, sum(self.distances()) - data.horizon)
        ahead = data.known & data.split.within(start, stop) & (data.age >= least + data.horizon)
        return np.flatnonzero(ahead) - data.horizon

    def design(self, form: Form, rows: NDArray[np.intp]) -> Floats:
        """[rows, lags · columns], the newest lag first."""
        features = self.features if form.inputs else self.features[:, -1:]
        found = np.empty((len(rows), form.lags * features.shape[1]))
        for k in range(form.lags):
            found[:, k * features.shape[1] : (k + 1) * features.shape[1]] = features[rows - k]
        return found

    def solved(self, form: Form, stop: int) -> tuple[Floats, Floats]:
        """Weights [lags · columns, ridges] and constants [ridges], of the targets in the folds
        before ``stop``."""
        if form.smooth:
            return smoothing(form)
        rows = self.rows(form, 0, stop)
        design, goal = self.design(form, rows), self.goal[rows + self.data.horizon]
        return ridge(Sums.of(design, goal))


def smoothing(form: Form) -> tuple[Floats, Floats]:
    """Weights [lags, ways] and constants [ways] of exponential smoothing, in all ways that
    `FORGETTING` gives.

    The differences z, over d and d' say, are taken for (1 − θB^d)(1 − θ'B^d') e, with independent e
    and the backward shift B: those of the airline model (G. E. P. Box, G. M. Jenkins: Time Series
    Analysis, 1970) and, over one step, of simple exponential smoothing (J. F. Muth, 1960). The
    prediction is what this makes of the last ``lags`` z; those before count as 0.
    """
    found = []
    for ways in itertools.product(FORGETTING, repeat=len(form.differences)):
        errors = np.zeros(form.lags + 1)  # e(t + 1), as weights of z(t + 1), z(t), ...
        errors[0] = 1.0
        for step, kept in zip(form.differences, ways, strict=True):
            for k in range(step, form.lags + 1):
                errors[k] += kept * errors[k - step]
        found.append(-errors[1:])
    return np.array(found).T, np.zeros(len(found))


def in_levels(form: Form, weights: Floats, data: Data) -> Floats:
    """Weights of differences as weights [order, columns] of what is differenced."""
    found = np.zeros((form.order, data.columns))
    columns = data.columns if form.inputs else 1
    found[: form.lags, -columns:] = weights.reshape(form.lags, columns)
    ahead = max(data.horizon, 1)
    base: dict[int, float] = {0: 1.0}
    for step in form.differences:
        moved = found.copy()
        moved[step:] -= found[: form.order - step]
        found = moved
        own = step * -(-ahead // step)
        base = {
            lag: base.get(lag, 0.0) - base.get(lag - own, 0.0)
            for lag in {*base, *(b + own for b in base)}
        }
    for lag, factor in base.items():
        if lag:  # the base is what the differences leave of the target itself
            place = lag - data.horizon
            if place >= len(found):
                found = np.concatenate([found, np.zeros((place + 1 - len(found), data.columns))])
            found[place, -1] -= factor
    return found
