"""Optima: whether it matters where training starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bptt.diagnostics._words import percent
from bptt.errors import OptionError

Floats = np.ndarray

NEAR = 0.1
"""A start is near the best one if its loss is at most so much higher, relatively."""


@dataclass(frozen=True)
class Optima:
    """The losses that training ended with, from many starts.

    Attributes:
        losses: one of each start that ended, lowest first.
        failed: how many ended without a finite loss.
    """

    losses: Floats
    failed: int

    @property
    def spread(self) -> float:
        """The worst over the best, minus one."""
        best = float(self.losses[0])
        return float(self.losses[-1]) / best - 1 if best > 0 else math.inf

    @property
    def near(self) -> int:
        """How many end within 10 % of the best."""
        return int((self.losses <= self.losses[0] + NEAR * abs(self.losses[0])).sum())

    def verdict(self) -> str:
        """What was found, in words."""
        count = len(self.losses)
        low, middle, high = np.quantile(self.losses, (0, 0.5, 1))
        said = (
            f"{count} starts end with losses of {low:.3g} to {high:.3g} (median {middle:.3g}), "
            f"{self.near} of them within {percent(NEAR)} of the best: "
        )
        # The chance that at least one of n starts lands near the best is 1 − (1 − p)ⁿ.
        chance = self.near / count
        if self.near == count:
            said += "local optima do not matter here"
        else:
            enough = max(2, math.ceil(math.log(0.05) / math.log(1 - chance)))
            said += f"local optima matter, {enough} starts find a good one 19 times in 20"
        if self.failed:
            said += f"; {self.failed} more failed"
        return said + "."


def measure_optima(starts: Sequence[Any]) -> Optima:
    """The spread of end losses.

    Args:
        starts: losses, or what has them as ``loss``.
    """
    if isinstance(starts, (int, str)) or not hasattr(starts, "__iter__"):
        raise OptionError(
            f"starts takes the losses that training from many starts ended with, not {starts!r}: "
            "history = bptt.fit(..., starts=16), then starts=history.starts."
        )
    losses = np.array([float(getattr(start, "loss", start)) for start in starts])
    finite = np.sort(losses[np.isfinite(losses)])
    if len(finite) < 2:
        raise OptionError(
            f"a spread takes at least two starts that ended, but {len(finite)} of {len(losses)} "
            "did: train from more, as in bptt.fit(..., starts=16)."
        )
    return Optima(finite, len(losses) - len(finite))
