"""Linear forecasts: ridge regression on lags, all about it chosen by rolling validation.

The prediction of the target at t + h is affine in what is known at t, t−1, …, t−order+1: the inputs
and the past targets (ARX; AR without inputs), or the inputs alone (a finite impulse response). Each
horizon has its own model (the direct forecast). Many forms are tried:

- the target as it is, its square root or its logarithm;
- differences of target and lags: none, to the last value, to a season ago, and both;
- with the inputs and without them;
- how many lags;
- the ridge, which shrinks towards "no change" where differences are taken
  (A. E. Hoerl, R. W. Kennard: Ridge regression, 1970).

Each is fitted on what comes before a stretch of rows and judged on the stretch, three times over.
The forecast is the mean of all forms, weighted by how well they did (weights
exp(−n/4·log(MSE/least)), after J. M. Bates and C. W. J. Granger: The combination of forecasts,
1969): one form alone is chosen by luck where the rows are few. All sums are in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bptt.errors import DataError, OptionError
from bptt.forecasting._linear import (
    Linear,
    Part,
    ago,
    bounded,
    deviation,
    hold,
    restored,
    transformed,
    unit,
)
from bptt.forecasting._ridge import RIDGES, Sums, ridge
from bptt.forecasting._split import FOLDS, TEST, Split
from bptt.forecasting._tables import Floats

LAGS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
COLUMNS, NUMBERS = 450, 2 * 10**7
"""At most so many columns are regressed on, and so many numbers held."""

QUICK = 64
PROMISING = 6.0
"""More columns are regressed on only by forms of a kind whose mean squared error on few columns is
within this factor of the least."""

ROWS_PER_WEIGHT = 0.7
"""No order is tried that leaves fewer rows for each of its weights; the ridge bounds the rest."""

TEMPER = 0.5
"""Of the weights of forms: errors of neighbouring rows are alike, which counts them for less."""

LEAST = 4
"""Rows of the training part that a form is fitted on, at the least."""

LEAST_WEIGHT = 1e-3
"""Of a form in the mean, beside the best one's."""


@dataclass(frozen=True)
class Form:
    """One way to regress.

    Attributes:
        transform: of the target, of `TRANSFORMS`.
        differences: distances over which the regressors are differenced, one after another.
        inputs: whether the inputs are read.
        lags: how many steps are.
    """

    transform: str
    differences: tuple[int, ...]
    inputs: bool
    lags: int

    @property
    def order(self) -> int:
        """How many steps back it looks, the present one among them."""
        return max(self.lags, 1) + sum(self.differences)


def linear_model(
    inputs: Floats,
    target: Floats,
    horizon: int,
    stop: int,
    judged: int,
    simulate: bool = False,
    seasons: Sequence[int] = (),
    lags: int | None = None,
) -> Linear:
    """Choose and fit.

    Args:
        inputs: [rows, columns], scaled.
        target: [rows]; where it is NaN it is not counted.
        horizon: how many steps lie between what is read and the target.
        stop: the first target that is not seen.
        judged: the first target that forms are judged on; those up to ``stop`` are.
        simulate: read no past targets.
        seasons: periods, in steps.
        lags: take so many; default: as many as serve best.

    Raises:
        DataError: the rows do not suffice.
        OptionError: they do not suffice for so many ``lags``.
    """
    split = Split.at((judged, stop, len(target)), horizon=horizon)
    return Study.of(inputs, target, horizon, split, simulate, seasons, lags).fitted(TEST)


@dataclass
class Study:
    """The forms that serve, and how much each counts.

    Attributes:
        data: what is regressed.
        chosen: forms, the place of their ridge in `RIDGES`, and their weights, which sum to 1.
        widest: the most lags that were tried.
        most: the most that may be asked for.
    """

    data: _Data
    chosen: list[tuple[Form, int, float]]
    widest: int
    most: int

    @classmethod
    def of(
        cls,
        inputs: Floats,
        target: Floats,
        horizon: int,
        split: Split,
        simulate: bool = False,
        seasons: Sequence[int] = (),
        lags: int | None = None,
    ) -> Study:
        """Judge all forms, as `linear_model`, on the validation part of ``split``."""
        data = _Data(inputs, target, horizon, split, simulate)
        most = min(_most(data), max(split.training) // 2)
        if lags is not None and lags > most > 0:
            raise OptionError(
                f"lags must be at most {most}, not {lags}: the training part of {split.train} rows "
                f"bears no more, with {data.columns} weight(s) for each."
            )
        families = list(_families(data, seasons, lags))
        quick = [family.quick for family in families]
        firsts = [list(family.judged(lags)) for family, lags in zip(families, quick, strict=True)]
        bests = [min((mse for _, _, mse in first), default=np.inf) for first in firsts]
        found = [one for first in firsts for one in first]
        for family, best in zip(families, bests, strict=True):
            rest = [n for n in family.lags if n not in family.quick]
            if rest and best <= PROMISING * min(bests):
                found += family.judged(rest)
        if not found:
            raise DataError(
                f"the training rows with a known target are too few for {data.columns} "
                f"feature{'s' * (data.columns != 1)}. Give more rows, or smaller parts to validate "
                "and test on."
            )
        # Of a perfect fit rounding must not choose.
        errors = np.maximum([mse for _, _, mse in found], 1e-24)
        count = int((data.known & split.within(1, TEST)).sum())
        weights = np.exp(-TEMPER * count / 2 * np.log(errors / errors.min()))
        kept = np.flatnonzero(weights >= LEAST_WEIGHT)
        total = weights[kept].sum()
        chosen = [(*found[i][:2], float(weights[i] / total)) for i in kept]
        return cls(data, chosen, max(form.lags for form, _, _ in found), most)

    @property
    def at_limit(self) -> bool:
        """Whether the most lags that were tried count most."""
        shares: dict[int, float] = {}
        for form, _, weight in self.chosen:
            shares[form.lags] = shares.get(form.lags, 0.0) + weight
        return max(shares, key=shares.__getitem__) == self.widest

    def fitted(self, stop: int) -> Linear:
        """The weighted mean of the forms, fitted on the targets of the folds before ``stop``."""
        data, solved = self.data, {}
        found: dict[str, list[tuple[float, Floats, float]]] = {}
        for form, place, weight in self.chosen:
            if form not in solved:
                solved[form] = _Family(data, form.transform, form.differences).solved(form, stop)
            weights, biases = solved[form]
            levels = _in_levels(form, weights[:, place], data)
            found.setdefault(form.transform, []).append((weight, levels, float(biases[place])))
        parts = []
        for transform, several in found.items():
            share = sum(weight for weight, _, _ in several)
            whole = np.zeros((max(len(levels) for _, levels, _ in several), data.columns))
            for weight, levels, _ in several:
                whole[: len(levels)] += weight / share * levels
            bias = sum(weight / share * bias for weight, _, bias in several)
            parts.append(Part(transform, *data.scales[transform], whole, bias, share))
        columns = data.inputs.shape[1]
        reads = any(part.weight[:, :columns].any() for part in parts)
        order = max(len(part.weight) for part in parts)
        kind = "FIR" if data.simulate else "ARX" if reads else "AR"
        seen = data.target[data.split.within(0, stop)]
        return bounded(f"linear {kind}, order {order}", tuple(parts), seen, data.simulate)


class _Data:
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


def _families(data: _Data, seasons: Sequence[int], lags: int | None) -> Iterator[_Judging]:
    """All transforms and differences, with the lags that the rows can bear."""
    differences: list[tuple[int, ...]] = [()]
    if not data.simulate:
        differences.append((1,))
        differences += [d for s in seasons for d in ((s,), (1, s))]
    grid = (
        sorted({*LAGS, *(k * s + 1 for s in seasons for k in (1, 2))}) if lags is None else [lags]
    )
    for transform in data.transforms:
        for difference in differences:
            back = sum(difference)
            for inputs in (True, False) if data.inputs.shape[1] and not data.simulate else (True,):
                columns = data.columns if inputs else 1
                fits = [n for n in grid if _bears(data, back, n, columns)]
                if lags is None and difference and inputs is (data.inputs.shape[1] == 0):
                    fits.insert(0, 0)  # the target a season ago, say, and nothing else
                if fits:
                    family = _Family(data, transform, difference)
                    yield _Judging(family, inputs, fits)


def _bears(data: _Data, back: int, lags: int, columns: int) -> bool:
    """Whether the rows can tell the weights of so many lags, ``back`` rows from the first."""
    count = lags * columns
    most = min(COLUMNS, NUMBERS // max(data.bearing(back), 1))
    few = count <= max(columns, most)  # one lag is always tried
    return few and data.bearing(back + lags) >= max(8, ROWS_PER_WEIGHT * count)


def _most(data: _Data) -> int:
    """The most lags that the rows can tell the weights of."""
    lags = range(1, COLUMNS + 1)
    return max((n for n in lags if _bears(data, 0, n, data.columns)), default=0)


@dataclass
class _Family:
    """The regressions under one transform and one way to take differences."""

    data: _Data
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
        rows = self.rows(form, 0, stop)
        design, goal = self.design(form, rows), self.goal[rows + self.data.horizon]
        return ridge(Sums.of(design, goal))


@dataclass
class _Judging:
    """A family of forms, fitted before each fold and judged on it."""

    family: _Family
    inputs: bool
    lags: list[int]

    @property
    def quick(self) -> list[int]:
        """The lags that take little time."""
        columns = self.family.data.columns if self.inputs else 1
        return [n for n in self.lags if n * columns <= QUICK] or self.lags[:1]

    def judged(self, lags: Sequence[int]) -> Iterator[tuple[Form, int, float]]:
        """Every form and the place of every ridge, with the mean squared error over all folds, in
        units of the target's variance."""
        family = self.family
        scale = family.data.spread or 1.0
        forms = [Form(family.transform, family.differences, self.inputs, n) for n in lags]
        widest = forms[-1]
        squares = {form: np.zeros(len(RIDGES)) for form in forms}
        counts = dict.fromkeys(forms, 0)
        common: Sums | None = None
        for fold in range(1, FOLDS + 1):
            # The sums of all lags, to which each fold adds; fewer lags are a part of them, and of
            # the few rows before.
            fresh = family.rows(widest, fold - 1, fold)
            more = Sums.of(family.design(widest, fresh), self._goal(fresh))
            common = more if common is None else common + more
            judged = family.rows(widest, fold, fold + 1)
            if fold == 1:  # what the training part alone does not bear, is not fitted on it
                forms = [form for form in forms if len(family.rows(form, 0, 1)) >= LEAST]
            if not len(judged) or not forms:
                continue
            design, truth = family.design(widest, judged), family.data.target
            for form in forms:
                early = family.rows(form, 0, fold)
                early = early[family.data.age[early] < widest.order - 1]
                width = form.lags * (family.features.shape[1] if self.inputs else 1)
                own = common.first(width)
                if len(early):
                    own = own + Sums.of(family.design(form, early), self._goal(early))
                weights, biases = ridge(own)
                ahead = judged + family.data.horizon
                scaled = design[:, :width] @ weights + biases + family.base[ahead][:, None]
                found = family.data.unscaled(family.transform, scaled)
                squares[form] += (((found - truth[ahead][:, None]) / scale) ** 2).sum(axis=0)
                counts[form] += len(judged)
        most = max(counts.values(), default=0)
        for form in forms:
            if counts[form] == most > 0:
                for i, total in enumerate(squares[form]):
                    yield form, i, float(total) / most

    def _goal(self, rows: NDArray[np.intp]) -> Floats:
        return self.family.goal[rows + self.family.data.horizon]


def _in_levels(form: Form, weights: Floats, data: _Data) -> Floats:
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
