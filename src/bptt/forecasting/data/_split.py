"""Which rows train, validate and test, in the order of time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bptt.errors import DataError, OptionError
from bptt.forecasting.data._tables import Ages

EARLY, LATE = 3, 3
"""Into how many stretches, one after another, the second half of the training part of a series is
cut, and its validation part."""

VALIDATION, TEST = EARLY + 1, EARLY + LATE + 1
"""The first fold of the validation part, and the one of the test part."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Split:
    """The part of every row, in each series by itself.

    A prediction belongs to the part in which its target lies, so that none trains on what a later
    part is tested on.

    Attributes:
        fold: int8 [rows]: 0 (the first half of the training part), 1 to ``VALIDATION - 1`` (its
            second half), ``VALIDATION`` to ``TEST - 1``, `TEST`.
        age: [rows], how many rows of its own series come before each.
        horizon: of the predictions; the first ``horizon`` targets of a series have none.
        training: how many rows of each series train; the first ones.
        known: how many of each train or validate.
    """

    fold: NDArray[np.int8]
    age: Ages
    horizon: int
    training: tuple[int, ...]
    known: tuple[int, ...]

    @classmethod
    def at(cls, *parts: tuple[int, int, int], horizon: int) -> Split:
        """Split each series at ``(rows to train, those or to validate, rows)``."""
        found, ages = [], []
        for train, fitted, total in parts:
            fold = np.full(total, TEST, dtype=np.int8)
            half = train - train // 2
            ends = [half + round((train - half) * i / EARLY) for i in range(EARLY + 1)]
            ends += [train + round((fitted - train) * i / LATE) for i in range(1, LATE + 1)]
            for i in reversed(range(TEST)):
                fold[: ends[i]] = i
            found.append(fold)
            ages.append(np.arange(total))
        training, before, _ = zip(*parts, strict=True)
        return cls(np.concatenate(found), np.concatenate(ages), horizon, training, before)

    @classmethod
    def of(
        cls,
        lengths: Sequence[int],
        horizon: int,
        validation: float,
        test: float,
        names: Sequence[str] | None = None,
        apart: Iterable[int] = (),
    ) -> Split:
        """Split several series alike.

        Args:
            lengths: rows of each series.
            horizon: of the predictions.
            validation: share of the rows before the test part, or a number of rows.
            test: share of all rows, or a number of rows; 0: there is no test part.
            names: of the series, for messages.
            apart: rows of further series, which come after those and are all to test on.

        Raises:
            DataError: a part of a series would be empty.
        """
        apart = tuple(apart)
        if apart and test:
            raise OptionError(
                "the test part is the test data, so none is cut off from the others: leave the "
                "size of the test part out (test=0)."
            )
        names = [""] * (len(lengths) + len(apart)) if names is None else names
        ends = []
        for total, name in zip(lengths, names, strict=False):
            ends.append(_ends(total, horizon, validation, test, name))
        for total, name in zip(apart, names[len(lengths) :], strict=True):
            if total <= horizon:
                raise DataError(
                    f"{_told(name, 'the test data have')} {_rows(total)}: with horizon {horizon} "
                    f"nothing in them is predicted. Give at least {horizon + 1} rows."
                )
            ends.append((0, 0, total))
        return cls.at(*ends, horizon=horizon)

    def within(self, start: int, stop: int) -> Mask:
        """The rows [rows] in the folds from ``start`` up to ``stop``."""
        found: Mask = (self.fold >= start) & (self.fold < stop)
        return found

    @property
    def trains(self) -> Mask:
        """The rows [rows] of the training part."""
        return self.within(0, VALIDATION)

    @property
    def validation(self) -> Mask:
        """The rows [rows] of the validation part."""
        return self.within(VALIDATION, TEST)

    @property
    def tests(self) -> bool:
        """Whether there is a test part."""
        return bool((self.fold == TEST).any())

    @property
    def judged(self) -> Mask:
        """The rows [rows] whose predictions tell how well a model does: of the test part, or of
        the validation part where there is none."""
        last = self.fold == TEST if self.tests else self.validation
        found: Mask = last & (self.age >= self.horizon)
        return found

    @property
    def train(self) -> int:
        """How many rows train, of all series together."""
        return sum(self.training)

    @property
    def fitted(self) -> int:
        """How many rows train or validate, of all series together."""
        return sum(self.known)

    @property
    def total(self) -> int:
        """How many rows there are."""
        return len(self.fold)


def _ends(
    total: int, horizon: int, validation: float, test: float, name: str
) -> tuple[int, int, int]:
    if total < 2:
        raise DataError(
            f"{_told(name, 'the data have')} {_rows(total)}: a forecast needs a series of rows, "
            "ordered in time."
        )
    fitted = total - _size(total, test)
    train = fitted - _size(max(fitted, 0), validation)
    if not (horizon < train < fitted and (fitted < total or test == 0)):
        parts = f"{train - horizon} to train, {fitted - train} to validate and {total - fitted}"
        raise DataError(
            f"{f'series {name!r}: ' if name else ''}{total} rows are too few: with horizon "
            f"{horizon}, validation {validation:g} and test {test:g} they leave {parts} to test. "
            f"Give more rows or smaller parts{', or leave the series out' if name else ''}."
        )
    return train, fitted, total


def _told(name: str, otherwise: str) -> str:
    return f"series {name!r} has" if name else otherwise


def _rows(count: int) -> str:
    return f"{count} row{'s' * (count != 1)}"


def _size(rows: int, part: float) -> int:
    return int(part) if part >= 1 else rows - round((1 - part) * rows)
