"""The units in which each of several series is read: one for all, or one for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from bptt.forecasting.data._numbers import unit
from bptt.forecasting.data._series import Series
from bptt.forecasting.data._split import Mask
from bptt.forecasting.data._tables import Floats

KINDS = ("common", "mean", "deviation")
"""The data's own units for all series; of each series its mean, or its deviation from it."""


@dataclass(frozen=True)
class Units:
    """A zero and a unit of the target, of each series.

    Attributes:
        kind: of `KINDS`.
        of: zero and unit by the name of the series, from its training part; those of a series that
            is not among them are of its own known targets.
    """

    kind: str = "common"
    of: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def fit(cls, kind: str, series: Series, trains: Mask) -> Units:
        """Those of the rows where ``trains`` [rows] is true."""
        found = {}
        for one, span in zip(series.each(), series.spans, strict=True):
            target = one.target[trains[span]]
            if kind != "common" and np.isfinite(target).any():
                found[one.labels[0]] = _of(kind, target)
        return cls(kind, found)

    def own(self, series: Series) -> Series:
        """The series, the target in these units."""
        if self.kind == "common":
            return series
        zero, size = self._rows(series)
        return replace(series, target=(series.target - zero) / size)

    def one(self, series: Series) -> tuple[float, float]:
        """Zero and unit of one series."""
        if self.kind == "common":
            return 0.0, 1.0
        return self.of.get(series.labels[0]) or _of(self.kind, series.target)

    def restored(self, predictions: Floats, series: Series) -> Floats:
        """Predictions [rows] made on ``series``, in the data's own units."""
        if self.kind == "common":
            return predictions
        zero, size = self._rows(series)
        return predictions * size + zero

    def _rows(self, series: Series) -> tuple[Floats, Floats]:
        """Zero and unit of every row."""
        found = np.empty((2, len(series)))
        for one, span in zip(series.each(), series.spans, strict=True):
            found[:, span] = np.array(self.one(one))[:, None]
        return found[0], found[1]


def kinds_for(series: Series, trains: Mask, simulate: bool) -> list[str]:
    """The `KINDS` that several series can be read in.

    A simulation reads the inputs alone, which do not tell the series apart: it has common units.
    """
    targets = [series.target[span][trains[span]] for span in series.spans]
    targets = [one[np.isfinite(one)] for one in targets]
    targets = [one for one in targets if len(one)]
    if len(targets) < 2 or simulate:
        return ["common"]
    positive = all(one.min() >= 0 and one.mean() > 0 for one in targets)
    return [kind for kind in KINDS if positive or kind != "mean"]


def _of(kind: str, target: Floats) -> tuple[float, float]:
    """Zero and unit of known targets, 0 and 1 where there are none."""
    known = target[np.isfinite(target)]
    if not len(known):
        return 0.0, 1.0
    mean = float(known.mean())
    return (0.0, abs(mean) or 1.0) if kind == "mean" else (mean, unit(known))
