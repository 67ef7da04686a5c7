"""What a run spends: seconds, and evaluations of the cell."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf

from bptt.errors import OptionError


class Spent(Exception):
    """The budget is spent."""


@dataclass(frozen=True)
class Budget:
    """What every run may spend.

    Attributes:
        seconds: of training, or None.
        evaluations: of the cell, forward, one step of one lane each; or None.
    """

    seconds: float | None = None
    evaluations: int | None = None

    @classmethod
    def of(cls, value: str | float) -> Budget:
        """``"60s"``, ``"2min"`` or a float are seconds; ``"1e6"`` or a whole number evaluations.

        Raises:
            OptionError: it is neither, or not above 0.
        """
        if isinstance(value, str):
            value = value.strip()
            timed = re.fullmatch(r"([0-9.eE+]+)\s*(s|min)", value)
            try:
                number = float(timed[1] if timed else value)
            except ValueError:
                number = 0.0
            number = number if math.isfinite(number) else 0.0
            if timed:
                value = number * (60.0 if timed[2] == "min" else 1.0)
            else:
                value = int(number) if number == int(number) else 0
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            raise OptionError(
                "a budget is a time, as '60s' or '2min', or a whole number of cell evaluations, as "
                "'1e6'; both above 0."
            )
        return cls(evaluations=value) if isinstance(value, int) else cls(seconds=value)

    def __str__(self) -> str:
        if self.seconds is not None:
            return f"{self.seconds:g} s"
        return f"{self.evaluations:,} cell evaluations"


class Meter:
    """Counts what a run spends, and ends it when that is the budget; see `bptt._counting`.

    Attributes:
        evaluations: so far.
    """

    def __init__(self, budget: Budget) -> None:
        self.evaluations = 0
        self._budget = budget
        self._began, self._free = time.perf_counter(), False

    def spend(self, steps: int) -> None:
        """So many evaluations of the cell.

        Raises:
            Spent: nothing was left for them.
        """
        if self._free:
            return
        if self.share >= 1.0:
            raise Spent
        self.evaluations += steps

    def left(self) -> tuple[float, float]:
        """Evaluations and seconds."""
        seconds, evaluations = self._budget.seconds, self._budget.evaluations
        return (
            inf if evaluations is None else max(evaluations - self.evaluations, 0),
            inf if seconds is None else max(seconds - self.seconds, 0.0),
        )

    @property
    def seconds(self) -> float:
        """So far."""
        return time.perf_counter() - self._began

    @property
    def share(self) -> float:
        """How much of the budget is spent."""
        if self._budget.seconds is not None:
            return self.seconds / self._budget.seconds
        assert self._budget.evaluations is not None
        return self.evaluations / self._budget.evaluations

    @contextmanager
    def free(self) -> Iterator[None]:
        """What runs inside costs nothing."""
        before, self._free = time.perf_counter(), True
        try:
            yield
        finally:
            self._free = False
            self._began += time.perf_counter() - before
