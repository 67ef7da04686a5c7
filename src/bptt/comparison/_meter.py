"""What a run spends: seconds, and evaluations of the cell."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bptt.errors import OptionError
from bptt.network import Network


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
    """Counts what a network spends, and ends the run when that is the budget.

    Attributes:
        evaluations: so far.
    """

    def __init__(self, network: Network, budget: Budget) -> None:
        self.evaluations = 0
        self._budget = budget
        self._began, self._free = time.perf_counter(), False
        for name in ("unfold", "unfold_states"):
            # On this one network alone, which the run has to itself.
            setattr(network, name, self._counted(getattr(network, name)))

    def _counted(self, unfold: Any) -> Any:
        def counted(inputs: Any, *rest: Any, **options: Any) -> Any:
            if not self._free:
                if self.share >= 1.0:
                    raise Spent
                self.evaluations += inputs.shape[0] * inputs.shape[1]
            return unfold(inputs, *rest, **options)

        return counted

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
