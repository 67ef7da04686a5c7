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
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bptt.errors import DataError, OptionError
from bptt.forecasting._tables import Floats

RIDGES = 10.0 ** np.arange(-6, 2.1, 0.75)
"""Of columns of unit deviation, times the number of rows."""

LAGS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
COLUMNS, NUMBERS = 450, 2 * 10**7
"""At most so many columns are regressed on, and so many numbers held."""

QUICK = 64
PROMISING = 6.0
"""More columns are regressed on only by forms of a kind whose mean squared error on few columns is
within this factor of the least."""

FOLDS = 3
ROWS_PER_WEIGHT = 0.7
"""No order is tried that leaves fewer rows for each of its weights; the ridge bounds the rest."""

TEMPER = 0.5
"""Of the weights of forms: errors of neighbouring rows are alike, which counts them for less."""

LEAST_WEIGHT = 1e-3
"""Of a form in the mean, beside the best one's."""

BEYOND = 0.25
"""So far, of the range that was seen, may a simulation go beyond it."""

TRANSFORMS = ("none", "root", "log")

LEAST = 5e-324
"""The least number above 0: of what is lower the logarithm of this is taken."""

PERSISTENCE, MEAN = "persistence", "training mean"
"""The simplest models, of prediction and of simulation."""


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
    """

    transform: str
    center: float
    scale: float
    weight: Floats
    bias: float
    share: float = 1.0


@dataclass(frozen=True)
class Linear:
    """A weighted mean of affine functions of lags.

    Attributes:
        name: what it is, in words.
        parts: one for each transform of the target.
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

    def __call__(self, inputs: Floats, target: Floats) -> Floats:
        """Predictions [rows] from ``inputs`` [rows, columns] and ``target`` [rows]; row t is of the
        target at t + horizon and reads nothing later than row t. Before the first row stands the
        first row again; a missing target is read as the last known one."""
        held = hold(target, self.center)
        found = np.zeros(len(held))
        for part in self.parts:
            found += part.share * _applied(part, inputs, held, self.simulate)
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
        return float(_back(part.transform, np.array(part.center)))


def hold(values: Floats, before: float) -> Floats:
    """Missing values replaced by the last known one, by ``before`` where there is none."""
    known = np.isfinite(values)
    last = np.maximum.accumulate(np.where(known, np.arange(len(values)), -1))
    return np.where(last < 0, before, values[last])


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
    study = Study.of(inputs, target, horizon, stop, judged, simulate, seasons, lags)
    return study.fitted(stop)


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
        stop: int,
        judged: int,
        simulate: bool = False,
        seasons: Sequence[int] = (),
        lags: int | None = None,
    ) -> Study:
        """Judge all forms, as `linear_model`."""
        data = _Data(inputs, target, horizon, stop, simulate)
        most = min(_most(judged - horizon, data.columns), judged // 2)
        if lags is not None and lags > most > 0:
            raise OptionError(
                f"lags must be at most {most}, not {lags}: the training part of {judged} rows "
                f"bears no more, with {data.columns} weight(s) for each."
            )
        ends = [judged + round((stop - judged) * i / FOLDS) for i in range(FOLDS + 1)]
        families = list(_families(data, judged, seasons, lags))
        quick = [family.quick for family in families]
        firsts = [
            list(family.judged(ends, lags)) for family, lags in zip(families, quick, strict=True)
        ]
        bests = [min((mse for _, _, mse in first), default=np.inf) for first in firsts]
        found = [one for first in firsts for one in first]
        for family, best in zip(families, bests, strict=True):
            rest = [n for n in family.lags if n not in family.quick]
            if rest and best <= PROMISING * min(bests):
                found += family.judged(ends, rest)
        if not found:
            raise DataError(
                f"{judged - horizon} training rows with a known target are too few for "
                f"{data.columns} feature(s). Give more rows, or smaller parts to validate and test "
                "on."
            )
        # Of a perfect fit rounding must not choose.
        errors = np.maximum([mse for _, _, mse in found], 1e-24)
        count = int(data.known[judged:stop].sum())
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
        """The weighted mean of the forms, fitted on the targets before row ``stop``."""
        data, solved = self.data, {}
        found: dict[str, list[tuple[float, Floats, float]]] = {}
        for form, ridge, weight in self.chosen:
            if form not in solved:
                solved[form] = _Family(data, form.transform, form.differences).solved(form, stop)
            weights, biases = solved[form]
            levels = _in_levels(form, weights[:, ridge], data)
            found.setdefault(form.transform, []).append((weight, levels, float(biases[ridge])))
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
        return _bounded(
            f"linear {kind}, order {order}", tuple(parts), data.target[:stop], data.simulate
        )


def simplest(target: Floats, stop: int, columns: int, simulate: bool) -> Linear:
    """The last known target, for ever; in simulation the mean of those before row ``stop``."""
    seen = target[:stop][np.isfinite(target[:stop])]
    center, scale = float(seen.mean()), _unit(seen)
    weight = np.zeros((1, columns if simulate else columns + 1))
    weight[0, -1:] = 0.0 if simulate else 1.0
    part = Part("none", center, scale, weight, 0.0)
    return _bounded(MEAN if simulate else PERSISTENCE, (part,), seen, simulate)


def mixed(one: Linear, other: Linear, share: float) -> Linear:
    """A model that predicts ``share`` of what ``other`` does, and the rest of what ``one`` does."""
    parts = [replace(part, share=part.share * (1.0 - share)) for part in one.parts]
    parts += [replace(part, share=part.share * share) for part in other.parts]
    return replace(one, parts=tuple(part for part in parts if part.share))


def _bounded(name: str, parts: tuple[Part, ...], target: Floats, simulate: bool) -> Linear:
    """A model whose predictions stay near what was seen."""
    seen = target[np.isfinite(target)]
    low, high = float(seen.min()), float(seen.max())
    reach = (high - low) * (BEYOND if simulate else 1.0)
    return Linear(name, parts, simulate, reach, low, high)


class _Data:
    """What is regressed: inputs and the target under each transform, scaled."""

    def __init__(
        self, inputs: Floats, target: Floats, horizon: int, stop: int, simulate: bool
    ) -> None:
        self.inputs, self.target, self.horizon, self.simulate = inputs, target, horizon, simulate
        self.known = np.isfinite(target)
        self.columns = inputs.shape[1] + (not simulate)
        seen = target[:stop][self.known[:stop]]
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
            there = _there(transform, seen)
            center, scale = float(there.mean()), _unit(there)
            self.scales[transform] = center, scale
            self.scaled[transform] = (_there(transform, target) - center) / scale

    def unscaled(self, transform: str, values: Floats) -> Floats:
        """In the data's own units."""
        center, scale = self.scales[transform]
        return _back(transform, values * scale + center)


def _families(
    data: _Data, judged: int, seasons: Sequence[int], lags: int | None
) -> Iterator[_Judging]:
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
                rows = judged - data.horizon - back
                fits = [n for n in grid if _bears(rows, n, columns)]
                if lags is None and difference and inputs is (data.inputs.shape[1] == 0):
                    fits.insert(0, 0)  # the target a season ago, say, and nothing else
                if fits:
                    family = _Family(data, transform, difference)
                    yield _Judging(family, inputs, fits)


def _bears(rows: int, lags: int, columns: int) -> bool:
    """Whether so many rows can tell the weights of so many lags."""
    count = lags * columns
    few = count <= min(COLUMNS, NUMBERS // max(rows, 1))
    return few and rows - lags >= max(8, ROWS_PER_WEIGHT * count)


def _most(rows: int, columns: int) -> int:
    """The most lags that so many rows can tell the weights of."""
    return max((n for n in range(1, COLUMNS + 1) if _bears(rows, n, columns)), default=0)


@dataclass
class _Family:
    """The regressions under one transform and one way to take differences."""

    data: _Data
    transform: str
    differences: tuple[int, ...]

    def __post_init__(self) -> None:
        data = self.data
        scaled = data.scaled[self.transform]
        held = hold(scaled, 0.0)
        features = data.inputs if data.simulate else np.column_stack([data.inputs, held])
        base = np.zeros(len(scaled))
        back = self.distances()
        for step, own in zip(self.differences, back, strict=True):
            features = features - features[_ago(len(features), step)]
            # What the differences of the target set out from is known at t.
            base = base + held[_ago(len(held), own)] - base[_ago(len(held), own)]
        self.features, self.base = features, base
        self.goal = scaled - base

    def distances(self) -> tuple[int, ...]:
        """Over which the target is differenced: multiples that reach back to what is known."""
        ahead = max(self.data.horizon, 1)
        return tuple(step * -(-ahead // step) for step in self.differences)

    def rows(self, form: Form, start: int, stop: int) -> NDArray[np.intp]:
        """The rows that have all lags, with known targets from ``start`` up to ``stop``."""
        data = self.data
        first = max(form.order - 1, sum(self.distances()) - data.horizon, start - data.horizon)
        rows = np.arange(first, stop - data.horizon)
        return rows[data.known[rows + data.horizon]]

    def design(self, form: Form, rows: NDArray[np.intp]) -> Floats:
        """[rows, lags · columns], the newest lag first."""
        features = self.features if form.inputs else self.features[:, -1:]
        found = np.empty((len(rows), form.lags * features.shape[1]))
        for k in range(form.lags):
            found[:, k * features.shape[1] : (k + 1) * features.shape[1]] = features[rows - k]
        return found

    def solved(self, form: Form, stop: int) -> tuple[Floats, Floats]:
        """Weights [lags · columns, ridges] and constants [ridges], of the targets before
        ``stop``."""
        rows = self.rows(form, 0, stop)
        design, goal = self.design(form, rows), self.goal[rows + self.data.horizon]
        return _ridge(_Sums.of(design, goal))


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

    def judged(self, ends: Sequence[int], lags: Sequence[int]) -> Iterator[tuple[Form, int, float]]:
        """Every form and the place of every ridge, with the mean squared error over all folds, in
        units of the target's variance."""
        family = self.family
        forms = [Form(family.transform, family.differences, self.inputs, n) for n in lags]
        widest = forms[-1]
        unit = family.data.spread or 1.0
        squares = {form: np.zeros(len(RIDGES)) for form in forms}
        counts = dict.fromkeys(forms, 0)
        common: _Sums | None = None
        seen = 0
        for start, stop in pairwise(ends):
            # The sums of all lags, to which each fold adds; fewer lags are a part of them, and of
            # the few rows before.
            fresh = family.rows(widest, seen, start)
            more = _Sums.of(family.design(widest, fresh), self._goal(fresh))
            common = more if common is None else common + more
            seen = start
            judged = family.rows(widest, start, stop)
            if not len(judged):
                continue
            design, truth = family.design(widest, judged), family.data.target
            for form in forms:
                early = family.rows(form, 0, start)
                early = early[early < widest.order - 1] if form is not widest else early[:0]
                width = form.lags * (family.features.shape[1] if self.inputs else 1)
                own = common.first(width)
                if len(early):
                    own = own + _Sums.of(family.design(form, early), self._goal(early))
                if own.count < 4:
                    continue
                weights, biases = _ridge(own)
                ahead = judged + family.data.horizon
                scaled = design[:, :width] @ weights + biases + family.base[ahead][:, None]
                found = family.data.unscaled(family.transform, scaled)
                squares[form] += (((found - truth[ahead][:, None]) / unit) ** 2).sum(axis=0)
                counts[form] += len(judged)
        most = max(counts.values())
        for form in forms:
            if counts[form] == most > 0:
                for i, total in enumerate(squares[form]):
                    yield form, i, float(total) / most

    def _goal(self, rows: NDArray[np.intp]) -> Floats:
        return self.family.goal[rows + self.family.data.horizon]


@dataclass(frozen=True)
class _Sums:
    """What a regression needs of its rows."""

    count: int
    mean: Floats
    goal: float
    products: Floats
    with_goal: Floats

    @classmethod
    def of(cls, design: Floats, goal: Floats) -> _Sums:
        """Sums over all rows, not centred."""
        count = len(design)
        return cls(count, design.sum(axis=0), float(goal.sum()), design.T @ design, design.T @ goal)

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(
            self.count + other.count,
            self.mean + other.mean,
            self.goal + other.goal,
            self.products + other.products,
            self.with_goal + other.with_goal,
        )

    def first(self, columns: int) -> _Sums:
        """Of the first columns alone."""
        return replace(
            self,
            mean=self.mean[:columns],
            products=self.products[:columns, :columns],
            with_goal=self.with_goal[:columns],
        )


def _ridge(sums: _Sums) -> tuple[Floats, Floats]:
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


def _applied(part: Part, inputs: Floats, held: Floats, simulate: bool) -> Floats:
    scaled = (_there(part.transform, held) - part.center) / part.scale
    features = inputs if simulate else np.column_stack([inputs, scaled])
    found = np.full(len(features), part.bias)
    for k, weight in enumerate(part.weight):
        if weight.any():
            found += features[_ago(len(features), k)] @ weight
    return _back(part.transform, found * part.scale + part.center)


def _ago(rows: int, steps: int) -> NDArray[np.intp]:
    """The rows so many steps before each; the first again where there is none."""
    return np.maximum(np.arange(rows) - steps, 0)


def _there(transform: str, values: Floats) -> Floats:
    if transform == "none":
        return values
    if transform == "root":
        return np.sqrt(np.maximum(values, 0.0))
    return np.log(np.maximum(values, LEAST))


def _back(transform: str, values: Floats) -> Floats:
    if transform == "none":
        return values
    if transform == "root":
        return np.maximum(values, 0.0) ** 2
    return np.exp(np.clip(values, -740.0, 690.0))


def deviation(values: Floats) -> float:
    """The standard deviation, of numbers however small: their squares may be no number."""
    largest = float(np.abs(values).max(initial=0.0))
    return float((values / largest).std()) * largest if largest else 0.0


def _unit(values: Floats) -> float:
    return deviation(values) or 1.0
