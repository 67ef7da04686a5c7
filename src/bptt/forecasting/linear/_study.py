"""Linear forecasts: ridge regression on lags, all about it chosen by rolling validation.

The prediction of the target at t + h is affine in what is known at t, t−1, …, t−order+1: the inputs
and the past targets (ARX; AR without inputs), or the inputs alone (a finite impulse response). Each
horizon has its own model (the direct forecast). Many forms are tried:

- the target as it is, its square root or its logarithm;
- differences of target and lags: none, to the last value, to a season ago, and both;
- with the inputs and without them;
- how many lags;
- exponential smoothing, where differences are taken: nothing in it is regressed;
- the ridge, which shrinks towards "no change" where differences are taken
  (A. E. Hoerl, R. W. Kennard: Ridge regression, 1970).

Each is fitted on what comes before a stretch of rows and judged on the stretch, six times over: on
the second half of the training part, whose rows count half, and on the validation part.
The forecast is the mean of all forms, weighted by how well they did (weights
exp(−n/4·log(MSE/least)), after J. M. Bates and C. W. J. Granger: The combination of forecasts,
1969): one form alone is chosen by luck where the rows are few. All sums are in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bptt.errors import DataError, OptionError
from bptt.forecasting.data._split import TEST, Split
from bptt.forecasting.data._tables import Floats
from bptt.forecasting.linear._forms import Data, Family, Form, in_levels
from bptt.forecasting.linear._judging import Judged, Judging, families, most_lags
from bptt.forecasting.linear._linear import Linear, Part, bounded

PROMISING = 6.0
"""More columns are regressed on only by forms of a kind whose mean squared error on few columns is
within this factor of the least."""

TEMPER = 0.5
"""Of the weights of forms: errors of neighbouring rows are alike, which counts them for less."""

LEAST_WEIGHT = 1e-3
"""Of a form in the mean, beside the best one's."""

BETTER = 0.98
"""Forms that read more rows have mean squared errors lower by this factor, or none is worth it at
the beginning of a series."""

MOST_STARTS = 16
"""Forms that predict the first rows of a series."""

EXACT = 1e-24
"""Mean squared errors, in units of the target's variance, that are no more than rounding."""


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
        starts: forms that read ever more rows, each the best of those that read no more, and the
            places of their ridges: for the first rows of a series.
        widest: the most lags that were tried.
        most: the most that may be asked for.
    """

    data: Data
    chosen: list[tuple[Form, int, float]]
    starts: list[tuple[Form, int]]
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
        data = Data(inputs, target, horizon, split, simulate)
        most = min(most_lags(data), max(split.training) // 2)
        if lags is not None and lags > most > 0:
            raise OptionError(
                f"lags must be at most {most}, not {lags}: the training part of {split.train} rows "
                f"bears no more, with {data.columns} weight(s) for each."
            )
        kinds = list(families(data, seasons, lags))
        firsts = [list(kind.judged(kind.quick)) for kind in kinds]
        bests = [min(map(_error, first), default=np.inf) for first in firsts]
        found = [one for first in firsts for one in first]
        for kind, best in zip(kinds, bests, strict=True):
            rest = [n for n in kind.lags if n not in kind.quick]
            if rest and best <= PROMISING * min(bests):
                found += kind.judged(rest)
        if not found:
            raise DataError(
                f"the training rows with a known target are too few for {data.columns} "
                f"feature{'s' * (data.columns != 1)}. Give more rows, or smaller parts to validate "
                "and test on."
            )
        tried = [one.form.lags for one in found if not one.form.smooth]
        ratios = _ratios(data, found)
        chosen = _weighed(found, ratios)
        starts = [] if simulate else _starts(found, ratios)
        return cls(data, chosen, starts, max(tried, default=0), most)

    def rolled(self) -> Floats:
        """The predictions of the mean of the forms [rows], by the row of the target, each by what
        was fitted before its stretch; NaN where none was judged."""
        total, weights = np.zeros((2, len(self.data.target)))
        kinds: dict[Form, dict[Form, list[tuple[int, float]]]] = {}
        for form, place, weight in self.chosen:
            kind = kinds.setdefault(replace(form, lags=0), {})
            kind.setdefault(form, []).append((place, weight))
        for each, forms in kinds.items():
            judging = _judging(self.data, each, [form.lags for form in forms])
            for form, rows, found in judging.predicted(judging.lags):
                for place, weight in forms[form]:
                    total[rows] += weight * found[:, place]
                    weights[rows] += weight
        mean: Floats = total / np.where(weights > 0, weights, np.nan)
        return mean

    @property
    def at_limit(self) -> bool:
        """Whether the most lags that were tried count most."""
        shares: dict[int, float] = {}
        for form, _, weight in self.chosen:
            if form.smooth:
                continue
            shares[form.lags] = shares.get(form.lags, 0.0) + weight
        return bool(shares) and max(shares, key=shares.__getitem__) == self.widest

    def fitted(self, stop: int) -> Linear:
        """The weighted mean of the forms, fitted on the targets of the folds before ``stop``."""
        data, solved = self.data, {}
        found: dict[str, list[tuple[float, Floats, float]]] = {}

        def fitted(form: Form, place: int) -> tuple[Floats, float]:
            if form not in solved:
                solved[form] = Family(data, form.transform, form.differences).solved(form, stop)
            weights, biases = solved[form]
            return in_levels(form, weights[:, place], data), float(biases[place])

        for form, place, weight in self.chosen:
            levels, bias = fitted(form, place)
            found.setdefault(form.transform, []).append((weight, levels, bias))
        parts = []
        for transform, several in found.items():
            share = sum(weight for weight, _, _ in several)
            whole = np.zeros((max(len(levels) for _, levels, _ in several), data.columns))
            for weight, levels, _ in several:
                whole[: len(levels)] += weight / share * levels
            bias = sum(weight / share * bias for weight, _, bias in several)
            parts.append(Part(transform, *data.scales[transform], whole, bias, share))
        parts = self._begun(parts, fitted)
        columns = data.inputs.shape[1]
        reads = any(part.weight[:, :columns].any() for part in parts)
        order = max(len(part.weight) for part in parts)
        kind = "FIR" if data.simulate else "ARX" if reads else "AR"
        seen = data.target[data.split.within(0, stop)]
        return bounded(f"linear {kind}, order {order}", tuple(parts), seen, data.simulate)

    def _begun(
        self, parts: list[Part], fitted: Callable[[Form, int], tuple[Floats, float]]
    ) -> list[Part]:
        """The parts from where they have all lags on, and those for the rows before.

        Before the first row stands the first row again, which tells an order of many lags nothing.
        """
        data = self.data
        first = max(len(part.weight) for part in parts) - 1
        starts: list[tuple[str, Floats, float]] = []
        for form, place in self.starts:
            levels, bias = fitted(form, place)
            # Over a long horizon a form of a lower order may reach back further.
            while starts and len(starts[-1][1]) >= len(levels):
                starts.pop()
            if len(levels) <= first:
                starts.append((form.transform, levels, bias))
        if not starts:
            return parts
        begins = [0, *(len(levels) - 1 for _, levels, _ in starts[1:]), first]
        found = [replace(part, first=first) for part in parts]
        for i, (transform, levels, bias) in enumerate(starts):
            begin, end = begins[i], begins[i + 1]
            scales = data.scales[transform]
            found.append(Part(transform, *scales, levels, bias, 1.0, begin, end))
        return found


def _error(judged: Judged) -> float:
    """The least mean squared error, of all ridges."""
    return float(judged.error.min())


def _ratios(data: Data, found: Sequence[Judged]) -> list[Floats]:
    """Of each form, the mean squared errors [ridges] beside those of one of them.

    Not every form can be judged on the same rows. The error of each is divided by that of one which
    was judged on the most rows, on those of the form's rows on which that one was.
    """
    most = max(len(one.rows) for one in found)
    first = min((one for one in found if len(one.rows) == most), key=_error)
    form, place = first.form, int(first.error.argmin())
    reference = np.full(len(data.target), np.nan)
    for _, rows, predicted in _judging(data, form, [form.lags]).predicted([form.lags]):
        errors = (predicted[:, place] - data.target[rows]) / (data.spread or 1.0)
        reference[rows] = errors**2
    ratios = []
    for one in found:
        both = np.isfinite(reference[one.rows])
        of = one.counts * both
        rival = (
            np.average(np.where(both, reference[one.rows], 0.0), weights=of) if of.any() else 1.0
        )
        # Of a perfect fit rounding must not choose.
        ratios.append(np.maximum(one.error, EXACT) / max(float(rival), EXACT))
    return ratios


def _starts(found: Sequence[Judged], ratios: Sequence[Floats]) -> list[tuple[Form, int]]:
    """Forms by how many rows they read, each better than all that read fewer."""
    kept: list[tuple[Form, int]] = []
    best = np.inf
    for i in sorted(range(len(found)), key=lambda i: (found[i].form.order, ratios[i].min())):
        least = float(ratios[i].min())
        if least < BETTER * best:
            if kept and kept[-1][0].order == found[i].form.order:
                continue
            kept.append((found[i].form, int(ratios[i].argmin())))
            best = least
    return kept[-MOST_STARTS:]


def _weighed(found: Sequence[Judged], ratios: Sequence[Floats]) -> list[tuple[Form, int, float]]:
    """The forms that serve, the places of their ridges, and their weights."""
    logarithms = [
        -TEMPER * one.counts.sum() / 2 * np.log(ratio)
        for one, ratio in zip(found, ratios, strict=True)
    ]
    best = max(float(each.max()) for each in logarithms)
    weights = [np.exp(each - best) for each in logarithms]
    kept = [(i, j) for i, each in enumerate(weights) for j in np.flatnonzero(each >= LEAST_WEIGHT)]
    total = sum(weights[i][j] for i, j in kept)
    return [(found[i].form, int(j), float(weights[i][j] / total)) for i, j in kept]


def _judging(data: Data, kind: Form, lags: Sequence[int]) -> Judging:
    """What judges forms of a kind with so many lags."""
    family = Family(data, kind.transform, kind.differences)
    return Judging(family, kind.inputs, sorted(lags), kind.smooth)
