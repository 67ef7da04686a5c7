"""Linear forecasts: affine functions of lags, as they are applied to data.

`bptt.forecasting.linear._study` chooses and fits them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bptt.forecasting.data._numbers import ago, hold, unit
from bptt.forecasting.data._tables import Ages, Floats

BEYOND = 0.25
"""So far, of the range that was seen, may a simulation go beyond it."""

TRANSFORMS = ("none", "root", "log")

LEAST = 5e-324
"""The least number above 0: of what is lower the logarithm of this is taken."""

PERSISTENCE, MEAN = "persistence", "training mean"
"""The simplest models, of prediction and of simulation."""


@dataclass(frozen=True)
class Part:
    """An affine function of lags, of a transformed target.

    Attributes:
        transform: of the target, in which past ones are read and the prediction is made.
        center, scale: of the transformed target.
        weight: float64 [order, columns], the newest lag first; the columns are the inputs and, in
            prediction, the target last.
        bias: the constant.
        share: in the mean of all parts.
        first, last: it predicts after rows that so many of their series come before: from ``first``
            on, up to ``last``, which is not among them (None: to the end).
    """

    transform: str
    center: float
    scale: float
    weight: Floats
    bias: float
    share: float = 1.0
    first: int = 0
    last: int | None = None

    def rows(self, age: Ages) -> NDArray[np.intp]:
        """The rows after which it predicts."""
        last = np.inf if self.last is None else self.last
        return np.flatnonzero((age >= self.first) & (age < last))


@dataclass(frozen=True)
class Linear:
    """A weighted mean of affine functions of lags.

    Attributes:
        name: what it is, in words.
        parts: one for each transform of the target; then those for the first rows of a series, on
            which they have not all lags.
        simulate: whether past targets are not read.
        reach: a prediction goes no further from the last known target (in simulation: beyond what
            was seen).
        low, high: the least and the greatest target that were seen.
    """

    name: str
    parts: tuple[Part, ...]
    simulate: bool
    reach: float
    low: float
    high: float

    @property
    def order(self) -> int:
        """How many steps back it looks."""
        return max(len(part.weight) for part in self.parts)

    @property
    def is_simplest(self) -> bool:
        """Whether nothing in it was regressed."""
        return self.name in (PERSISTENCE, MEAN)

    def __call__(self, inputs: Floats, target: Floats, age: Ages | None = None) -> Floats:
        """Predictions [rows] from ``inputs`` [rows, columns] and ``target`` [rows]; row t is of the
        target at t + horizon and reads nothing later than row t. Before the first row stands the
        first row again; a missing target is read as the last known one. ``age`` [rows] tells
        several series apart: no row reads what is before its own series."""
        age = np.arange(len(target)) if age is None else age
        held = hold(target, self.center, age)
        found = np.zeros(len(held))
        # What is far below all that was seen, a zero say, has no logarithm that tells anything.
        above = np.maximum(held, 0.5 * self.low)
        for part in self.parts:
            given = above if part.transform == "log" else held
            rows = part.rows(age)
            found[rows] += part.share * _applied(part, inputs, given, age, rows)
        if self.simulate:
            return self.bounded(found)
        return np.clip(found, held - self.reach, held + self.reach)

    def bounded(self, simulated: Floats) -> Floats:
        """What is simulated, no further than ``reach`` from what was seen."""
        return np.clip(simulated, self.low - self.reach, self.high + self.reach)

    @property
    def center(self) -> float:
        """What stands for targets before the first known one."""
        part = self.parts[0]
        return float(restored(part.transform, np.array(part.center)))


def simplest(seen: Floats, columns: int, simulate: bool) -> Linear:
    """The last known target, for ever; in simulation the mean of those in ``seen``."""
    seen = seen[np.isfinite(seen)]
    center, scale = float(seen.mean()), unit(seen)
    weight = np.zeros((1, columns if simulate else columns + 1))
    weight[0, -1:] = 0.0 if simulate else 1.0
    part = Part("none", center, scale, weight, 0.0)
    return bounded(MEAN if simulate else PERSISTENCE, (part,), seen, simulate)


def mixed(one: Linear, other: Linear, share: float) -> Linear:
    """A model that predicts ``share`` of what ``other`` does, and the rest of what ``one`` does."""
    parts = [replace(part, share=part.share * (1.0 - share)) for part in one.parts]
    parts += [replace(part, share=part.share * share) for part in other.parts]
    return replace(one, parts=tuple(part for part in parts if part.share))


def bounded(name: str, parts: tuple[Part, ...], target: Floats, simulate: bool) -> Linear:
    """A model whose predictions stay near what was seen."""
    seen = target[np.isfinite(target)]
    low, high = float(seen.min()), float(seen.max())
    reach = (high - low) * (BEYOND if simulate else 1.0)
    return Linear(name, parts, simulate, reach, low, high)


def _applied(part: Part, inputs: Floats, held: Floats, age: Ages, rows: NDArray[np.intp]) -> Floats:
    """Predictions after ``rows``."""
    scaled = (transformed(part.transform, held) - part.center) / part.scale
    reads = part.weight.shape[1] > inputs.shape[1]
    features = np.column_stack([inputs, scaled]) if reads else inputs
    found = np.full(len(rows), part.bias)
    for k, weight in enumerate(part.weight):
        if weight.any():
            found += features[ago(age, k)[rows]] @ weight
    return restored(part.transform, found * part.scale + part.center)


def transformed(transform: str, values: Floats) -> Floats:
    if transform == "none":
        return values
    if transform == "root":
        return np.sqrt(np.maximum(values, 0.0))
    return np.log(np.maximum(values, LEAST))


def restored(transform: str, values: Floats) -> Floats:
    if transform == "none":
        return values
    if transform == "root":
        return np.maximum(values, 0.0) ** 2
    return np.exp(np.clip(values, -740.0, 690.0))
