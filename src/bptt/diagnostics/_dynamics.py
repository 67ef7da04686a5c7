"""Dynamics: whether small differences of the state die out or grow, along the user's data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bptt.diagnostics._jacobian import jacobian
from bptt.diagnostics._lyapunov import stretches
from bptt.diagnostics._reach import spread
from bptt.diagnostics._saturation import Squashed, measure_saturation
from bptt.diagnostics._trajectory import Trajectory
from bptt.diagnostics._words import percent, signed, steps_of
from bptt.errors import DataError, OptionError, at_least

Floats = np.ndarray

SHORTEST = 20
"""Fewer steps than this tell nothing about a long run."""
LANES = 32
"""So many sequences are followed side by side, at most."""
ALL = 128
"""Up to this width the whole spectrum is the default, above it the leading `LEADING`."""
LEADING = 32


@dataclass(frozen=True)
class Dynamics:
    """The recurrent Jacobian ∂state_t/∂state_{t−1} along the data.

    Attributes:
        exponents: Lyapunov exponents per step, largest first; −∞ where a direction is lost in one
            step. Nepers: a difference grows e^λ-fold a step.
        error: standard error of the largest.
        width: numbers in the state: so many exponents there are.
        steps: how many steps they were measured over, in all sequences, after a tenth for the
            frame to settle.
        log_determinant: the mean of log |det J|; None if it was not measured, as it takes the
            whole spectrum.
        radius: spectral radii of J at ``radius_steps``.
        radius_steps: places of those along the steps looked at.
        squashed: the saturation of the cell's squashing functions, in the order of the step.
    """

    exponents: Floats
    error: float
    width: int
    steps: int
    log_determinant: float | None
    radius: Floats
    radius_steps: Floats
    squashed: tuple[Squashed, ...]

    @property
    def dimension(self) -> float | None:
        """The attractor's dimension by Kaplan and Yorke: how many leading exponents sum to zero,
        interpolated; None where more exponents would be needed to tell."""
        total = 0.0
        for i, exponent in enumerate(self.exponents):
            if total + exponent < 0:
                return i + total / abs(exponent) if math.isfinite(exponent) else float(i)
            total += float(exponent)
        return float(self.width) if len(self.exponents) == self.width else None

    @property
    def entropy_rate(self) -> float:
        """The sum of the positive exponents, nepers a step: the Kolmogorov–Sinai entropy, by
        Pesin's identity."""
        return float(self.exponents[self.exponents > 0].sum())

    def verdict(self) -> str:
        """What was found, in words."""
        largest = float(self.exponents[0])
        margin = 2 * self.error
        said = [f"largest exponent {signed(largest)} per step: {self._kind(largest, margin)}"]
        lost = int(np.isinf(self.exponents).sum())
        if lost:
            said.append(f"{lost} of {self.width} directions are forgotten in one step")
        over = float((self.radius > 1).mean())
        said.append(
            f"spectral radius {np.median(self.radius):.3g} (median), above 1 in "
            f"{percent(over)} of the steps"
        )
        said.append(self._saturation())
        return "; ".join(said) + "."

    def _kind(self, largest: float, margin: float) -> str:
        if largest < -margin:
            if not math.isfinite(largest):
                return "stable, the state is forgotten at once"
            return f"stable, differences halve every {_period(-largest)}"
        if largest > margin:
            return f"chaotic, differences double every {_period(largest)}"
        return f"at the edge of chaos (± {margin:.1g})"

    def _saturation(self) -> str:
        if not self.squashed:
            return "the cell calls no sigmoid, tanh or relu, so nothing saturates"
        worst = max(self.squashed, key=lambda s: s.low + s.high)
        ends = percent(worst.low + worst.high)
        stuck = f", {percent(worst.stuck)} of its units are stuck" if worst.stuck else ""
        return f"most saturated: {worst.name} ({worst.kind}), {ends} of the time{stuck}"


def measure_dynamics(
    cell: nn.Module, trajectory: Trajectory, *, exponents: int | None, samples: int
) -> Dynamics:
    """Follow a frame of differences along the data; see `bptt.diagnose`."""
    width = trajectory.width
    count = _count(exponents, width)
    runs = side_by_side(trajectory)
    settling = len(runs) // 10
    grown = stretches(cell, trajectory, runs, count, settling)
    logs = grown.logs
    found = logs.mean(dim=(0, 1))
    whole = count == width
    # The cost of eigenvalues grows with width³.
    afforded = max(8, round(samples * min(1.0, (ALL / width) ** 3)))
    places = spread(torch.arange(len(trajectory)), min(samples, afforded))
    radius = [
        torch.linalg.eigvals(jacobian(cell, trajectory, rows)).abs().amax(dim=1)
        for rows in torch.split(places.to(trajectory.history.device), 64)
    ]
    return Dynamics(
        np.sort(found.cpu().numpy())[::-1],
        _standard_error(logs[:, :, int(found.argmax())]),
        width,
        grown.every * logs.shape[0] * logs.shape[1],
        float(logs.sum(dim=2).mean()) if whole else None,
        torch.cat(radius).cpu().numpy(),
        places.numpy(),
        measure_saturation(cell, trajectory, spread(torch.arange(len(trajectory)), 2000)),
    )


def _period(rate: float) -> str:
    steps = round(math.log(2) / rate)
    return steps_of(steps) if steps > 1 else "step"


def _count(exponents: int | None, width: int) -> int:
    if exponents is None:
        return width if width <= ALL else LEADING
    at_least(1, exponents=exponents)
    if exponents > width:
        raise OptionError(
            f"exponents={exponents}, but the state holds {width} numbers and has as many exponents."
        )
    return exponents


def side_by_side(trajectory: Trajectory) -> Tensor:
    """The longest sequences as int64 [step, run], cut to a common length: those at least half as
    long as the longest.

    Raises:
        DataError: all are too short.
    """
    runs = trajectory.runs()
    longest = runs[0][1]
    if longest < SHORTEST:
        raise DataError(
            f"the longest sequence looked at has {steps_of(longest)}; the dynamics need at least "
            f"{SHORTEST}. Give longer sequences, or leave the dynamics out: parts=('reach',)."
        )
    chosen = [run for run in runs if 2 * run[1] >= longest][:LANES]
    length = chosen[-1][1]
    first = torch.tensor([low for low, _ in chosen], device=trajectory.history.device)
    return torch.arange(length, device=first.device)[:, None] + first


def _standard_error(logs: Tensor) -> float:
    """Of the mean of ``logs`` [step, run], by the means of blocks that are long beside the
    correlation time: about twenty blocks in all, at least one a run."""
    steps, runs = logs.shape
    blocks = max(1, min(steps, -(-20 // runs)))
    size = steps // blocks
    means = logs[: blocks * size].reshape(blocks, size, runs).mean(dim=1).flatten()
    if len(means) < 2 or not bool(torch.isfinite(means).all()):
        return 0.0
    return float(means.std() / math.sqrt(len(means)))
