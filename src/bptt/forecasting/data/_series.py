"""`Series`: the columns of one or several series."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bptt.errors import DataError
from bptt.forecasting.data._tables import Ages, Floats
from bptt.forecasting.data._times import Times


@dataclass(frozen=True)
class Series:
    """One target and any number of inputs, row by row; of several series, one after the other.

    Attributes:
        inputs: float64 [rows, columns], finite.
        target: float64 [rows]; NaN where it is missing.
        input_names: of the columns of ``inputs``.
        target_name: of ``target``, for messages, tables and pictures.
        source: the name of the file or data set.
        axis: [rows], what the rows are plotted over: float64, or datetime64 of dates.
        axis_name: what ``axis`` is.
        begins: the row where each series begins, in rising order, the first at 0.
        labels: the name of each series; empty where there is but one.
        group_name: the column that tells them apart.
        times: of the rows, where a column gives them.
    """

    inputs: Floats
    target: Floats
    input_names: tuple[str, ...]
    target_name: str
    source: str
    axis: NDArray[Any]
    axis_name: str = "row"
    begins: tuple[int, ...] = (0,)
    labels: tuple[str, ...] = ("",)
    group_name: str | None = None
    times: Times | None = None

    def __len__(self) -> int:
        return len(self.target)

    @cached_property
    def age(self) -> Ages:
        """[rows]: how many rows of its own series come before each."""
        return np.concatenate([np.arange(span.stop - span.start) for span in self.spans])

    @property
    def spans(self) -> list[slice]:
        """The rows of each series."""
        ends = (*self.begins[1:], len(self))
        return [slice(start, stop) for start, stop in zip(self.begins, ends, strict=True)]

    def each(self) -> list[Series]:
        """Every series by itself."""
        return [self._cut(span, label) for span, label in zip(self.spans, self.labels, strict=True)]

    def rows(self, stop: int) -> Series:
        """The first ``stop`` rows of one series."""
        return self._cut(slice(0, stop), self.labels[0])

    def _cut(self, rows: slice, label: str) -> Series:
        return replace(
            self,
            inputs=self.inputs[rows],
            target=self.target[rows],
            axis=self.axis[rows],
            begins=(0,),
            labels=(label,),
            times=None if self.times is None else self.times[rows],
        )

    def followed_by(self, other: Series) -> Series:
        """These series, and then the others, of which each begins anew.

        Raises:
            DataError: their columns are others.
        """
        for series in (self, other):
            if (series.input_names, series.target_name) != (self.input_names, self.target_name):
                raise DataError(
                    f"{other.source} has other columns than {self.source}: give both the same."
                )
        times = None
        if self.times is not None and other.times is not None:
            try:
                times = self.times.followed_by(other.times)
            except ValueError as error:
                raise DataError(
                    f"{self.source} and {other.source}, column {self.axis_name!r}: {error}."
                ) from None
        return replace(
            self,
            inputs=np.concatenate([self.inputs, other.inputs]),
            target=np.concatenate([self.target, other.target]),
            axis=np.concatenate([self.axis, other.axis]),
            begins=(*self.begins, *(len(self) + begin for begin in other.begins)),
            labels=(*self.labels, *other.labels),
            times=times,
        )

    def fingerprint(self) -> str:
        """A checksum of all numbers and times, and of where each series begins."""
        found = hashlib.sha256(repr((self.begins, self.labels)).encode())
        if self.times is not None:
            found.update("\0".join(map(str, self.times.texts)).encode(errors="surrogatepass"))
        for part in (self.inputs, self.target):
            found.update(np.ascontiguousarray(part).tobytes())
        return found.hexdigest()

    def left_by(self, prediction: Floats, horizon: int) -> Floats:
        """Target minus prediction [rows], by the row of the target; NaN where there is none.

        Args:
            prediction: [rows], by the row after which each is made.
            horizon: how many rows later its target lies.
        """
        return self.target - self.aligned(prediction, horizon)

    def aligned(self, prediction: Floats, horizon: int) -> Floats:
        """Predictions [rows] by the row of their target; NaN where there is none.

        Args:
            prediction: [rows], by the row after which each is made.
            horizon: how many rows later its target lies.
        """
        found = np.full(len(self), np.nan)
        found[horizon:] = prediction[: len(self) - horizon]
        found[self.age < horizon] = np.nan
        return found

    def axis_at(self, row: int) -> float:
        """The place of a row on an axis of numbers, going on past its end with the last step."""
        if row < len(self):
            return float(self.axis[row])
        step = self.axis[-1] - self.axis[-2] if len(self) > 1 else 1.0
        return float(self.axis[-1] + step * (row - len(self) + 1))

    def place(self, row: int) -> str:
        """What stands for a row of one series in tables: its time as it stood in the file, or its
        number; past the end it goes on with the regular step."""
        if self.times is None:
            return f"{self.axis_at(row):.12g}"
        if row < len(self):
            return str(self.times.texts[row])
        return self.times.after(row - len(self) + 1)
