"""Which rows train, validate and test, in the order of time."""

from __future__ import annotations

from dataclasses import dataclass

from bptt.errors import DataError
from bptt.streams import Stream


@dataclass(frozen=True)
class Split:
    """Targets 0 to ``train − 1`` train, up to ``fitted − 1`` validate, up to ``total − 1`` test.

    A prediction belongs to the part in which its target lies, so that none trains on what a later
    part is tested on.
    """

    train: int
    fitted: int
    total: int

    @classmethod
    def of(cls, total: int, horizon: int, validation: float, test: float) -> Split:
        """Split ``total`` rows.

        Args:
            total: rows there are.
            horizon: of the predictions; the first ``horizon`` targets have none.
            validation: share of the rows before the test part, or a number of rows.
            test: share of all rows, or a number of rows.

        Raises:
            DataError: a part would be empty.
        """
        if total < 2:
            raise DataError(
                f"the data have {total} row{'s' * (total != 1)}: a forecast needs a series of "
                "rows, ordered in time."
            )
        fitted = total - _size(total, test)
        train = fitted - _size(max(fitted, 0), validation)
        if not horizon < train < fitted < total:
            parts = f"{train - horizon} to train, {fitted - train} to validate and {total - fitted}"
            raise DataError(
                f"{total} rows are too few: with horizon {horizon}, validation {validation:g} and "
                f"test {test:g} they leave {parts} to test. Give more rows or smaller parts."
            )
        return cls(train, fitted, total)

    def parts(self, stream: Stream) -> tuple[Stream, Stream, Stream]:
        """A stream of all rows as training, validation and test part."""
        train, validation, test = stream.split(
            self.train / self.total, (self.fitted - self.train) / self.total
        )
        return train, validation, test


def _size(rows: int, part: float) -> int:
    return int(part) if part >= 1 else rows - round((1 - part) * rows)
