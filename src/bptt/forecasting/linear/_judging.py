"""How well each form of regression does on rows that it was not fitted on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bptt.forecasting.data._split import TEST, VALIDATION
from bptt.forecasting.data._tables import Floats
from bptt.forecasting.linear._forms import Data, Family, Form, smoothing
from bptt.forecasting.linear._ridge import Sums, ridge

LAGS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
COLUMNS, NUMBERS = 450, 2 * 10**7
"""At most so many columns are regressed on, and so many numbers held."""

QUICK = 64
"""Columns that take little time."""

ROWS_PER_WEIGHT = 0.7
"""No order is tried that leaves fewer rows for each of its weights; the ridge bounds the rest."""

EARLY_COUNTS = 0.5
"""So much counts a row of the training part: what is judged on it knows fewer rows than what is
delivered will."""

SMOOTHED = 24
"""Steps of the past that exponential smoothing reads, or three seasons if that is more; at most a
third of the rows."""

LEAST = 4
"""Rows that a form is fitted on, at the least."""


@dataclass(frozen=True, eq=False)
class Judged:
    """How well a form did.

    Attributes:
        form: which.
        error: [ridges], mean squared errors, in units of the target's variance.
        rows: of the targets that they are of.
        counts: [rows], how much each of these counts in the mean.
    """

    form: Form
    error: Floats
    rows: NDArray[np.intp]
    counts: Floats


@dataclass
class Judging:
    """A family of forms, fitted before each stretch of rows and judged on it.

    The stretches are those of the second half of the training part and of the validation part, one
    after another.
    """

    family: Family
    inputs: bool
    lags: list[int]
    smooth: bool = False

    @property
    def quick(self) -> list[int]:
        """The lags that take little time."""
        columns = self.family.data.columns if self.inputs else 1
        return [n for n in self.lags if n * columns <= QUICK] or self.lags[:1]

    def judged(self, lags: Sequence[int]) -> Iterator[Judged]:
        """All forms of so many ``lags``."""
        target, scale = self.family.data.target, self.family.data.spread or 1.0
        validation = self.family.data.split.validation
        squares: dict[Form, Floats] = {}
        rows: dict[Form, list[NDArray[np.intp]]] = {}
        for form, ahead, found in self.predicted(lags):
            errors = (found - target[ahead][:, None]) / scale
            counts = np.where(validation[ahead], 1.0, EARLY_COUNTS)
            with np.errstate(over="ignore"):  # so far off that it is no rival
                squares[form] = squares.get(form, 0.0) + counts @ errors**2
            rows.setdefault(form, []).append(ahead)
        for form, several in rows.items():
            whole = np.concatenate(several)
            counts = np.where(validation[whole], 1.0, EARLY_COUNTS)
            yield Judged(form, squares[form] / counts.sum(), whole, counts)

    def predicted(self, lags: Sequence[int]) -> Iterator[tuple[Form, NDArray[np.intp], Floats]]:
        """Each form on each stretch that it can be judged on: the rows of the targets, and the
        predictions [rows, ridges] by what was fitted before the stretch, in the data's units."""
        family = self.family
        kind = family.transform, family.differences, self.inputs
        forms = [Form(*kind, n, self.smooth) for n in lags]
        widest = forms[-1]
        common: Sums | None = None
        for fold in range(1, TEST):
            # The sums of all lags, to which each fold adds; fewer lags are a part of them, and of
            # the few rows before.
            fresh = family.rows(widest, fold - 1, fold)
            more = Sums.of(family.design(widest, fresh), self._goal(fresh))
            common = more if common is None else common + more
            judged = family.rows(widest, fold, fold + 1)
            # What the training part does not bear is not fitted on it.
            if fold == VALIDATION and not self.smooth:
                forms = [form for form in forms if len(family.rows(form, 0, fold)) >= LEAST]
            if not len(judged):
                continue
            design, ahead = family.design(widest, judged), judged + family.data.horizon
            for form in forms:
                early = family.rows(form, 0, fold)
                width = form.lags * (family.features.shape[1] if self.inputs else 1)
                if form.smooth:
                    weights, biases = smoothing(form)
                elif fold < VALIDATION and len(early) < max(2 * LEAST, width):
                    continue
                else:
                    early = early[family.data.age[early] < widest.order - 1]
                    own = common.first(width)
                    if len(early):
                        own = own + Sums.of(family.design(form, early), self._goal(early))
                    weights, biases = ridge(own)
                scaled = design[:, :width] @ weights + biases + family.base[ahead][:, None]
                yield form, ahead, family.data.unscaled(family.transform, scaled)

    def _goal(self, rows: NDArray[np.intp]) -> Floats:
        return self.family.goal[rows + self.family.data.horizon]


def families(data: Data, seasons: Sequence[int], lags: int | None) -> Iterator[Judging]:
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
                    family = Family(data, transform, difference)
                    yield Judging(family, inputs, fits)
            if difference and lags is None and data.horizon == 1:
                most = min(max(SMOOTHED, 3 * max(difference) + 1), COLUMNS, data.bearing(back) // 3)
                if most and data.bearing(back + most) >= 2 * LEAST:
                    family = Family(data, transform, difference)
                    yield Judging(family, not data.inputs.shape[1], [most], smooth=True)


def _bears(data: Data, back: int, lags: int, columns: int) -> bool:
    """Whether the rows can tell the weights of so many lags, ``back`` rows from the first."""
    count = lags * columns
    most = min(COLUMNS, NUMBERS // max(data.bearing(back), 1))
    few = count <= max(columns, most)  # one lag is always tried
    return few and data.bearing(back + lags) >= max(8, ROWS_PER_WEIGHT * count)


def most_lags(data: Data) -> int:
    """The most lags that the rows can tell the weights of."""
    lags = range(1, COLUMNS + 1)
    return max((n for n in lags if _bears(data, 0, n, data.columns)), default=0)
