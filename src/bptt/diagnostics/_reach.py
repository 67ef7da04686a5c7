"""Reach: how far back the error of a step is felt, and what truncation costs.

Source of the bound and of the recommended depth: C. Aicher, N. J. Foti and E. B. Fox, Adaptively
truncating backpropagation through time to control gradient bias, UAI 2019. docs/diagnostics.md has
the equations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from bptt.diagnostics._sweep import Swept, sweep
from bptt.diagnostics._trajectory import Trajectory
from bptt.diagnostics._words import percent, steps_of
from bptt.errors import DataError, OptionError, at_least
from bptt.losses import StepLoss
from bptt.network import Network

Floats = np.ndarray
End = Literal["data", "vanished", "overflowed", "asked"]

QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Depth:
    """The gradient truncated to ``depth`` copies of the cell, beside the full one.

    Attributes:
        depth: copies that an error visits.
        error: ‖g_d − g‖/‖g‖.
        cosine: of the angle between g_d and g.
        bound: the bound δ(d) on ``error``; infinite where the norms bound nothing.
    """

    depth: int
    error: float
    cosine: float
    bound: float


@dataclass(frozen=True)
class Reach:
    """How far back gradients reach, measured from ``anchors`` steps spread over the data.

    Attributes:
        anchors: the number of steps whose errors were followed back.
        mean: [lag], over the anchors with so much history, of ‖∂loss_t/∂state_{t−lag}‖; lag 0 is
            the state that the prediction is read from.
        quantiles: [lag, 3], the 10 %, 50 % and 90 % quantiles.
        share: what counts as fallen, as a share of the mean at lag 0.
        fallen: the first lag from which on the mean stays below that, or None.
        depths: truncated gradients beside the full one, by depth; empty if it overflowed.
        tolerance: the relative bias that was asked for.
        recommended: the smallest of ``depths`` whose bias is bounded by that, or None.
        given: of ``depths``, the depth that the user named, or None.
        method: the gradient method whose own reach was measured, in words, or None.
        by_method: [lag], the mean over anchors as that method finds it; exactly 0 where it brings
            nothing back.
        end: why the lags end where they do: the ``"data"`` do, the gradient ``"vanished"`` or
            ``"overflowed"``, or so many were ``"asked"`` for.
    """

    anchors: int
    mean: Floats
    quantiles: Floats
    share: float
    fallen: int | None
    depths: tuple[Depth, ...]
    tolerance: float
    recommended: Depth | None
    given: Depth | None
    end: End
    method: str | None = None
    by_method: Floats | None = None

    @property
    def lags(self) -> int:
        """How many lags were measured."""
        return len(self.mean)

    def verdict(self) -> str:
        """What was found, in words."""
        said = [self._norms()]
        if self.end == "overflowed":
            said.append("the full gradient cannot be computed: truncate, and clip")
        elif self.recommended is None or self.recommended.depth >= self.lags:
            said.append(
                f"no depth below {self.lags} bounds the bias by {percent(self.tolerance)}: train "
                "with the full gradient"
            )
        else:
            best = self.recommended
            said.append(
                f"depth {best.depth} captures {percent(1 - best.error)} of the full gradient "
                f"(bias {percent(best.error)}, bounded by {percent(best.bound)}) and is "
                f"recommended for a tolerance of {percent(self.tolerance)}"
            )
        if self.given is not None:
            said.append(
                f"your depth {self.given.depth} captures {percent(1 - self.given.error)}, at a "
                f"cosine of {self.given.cosine:.3g}"
            )
        if self.method is not None and self.by_method is not None:
            felt = np.flatnonzero(self.by_method > 0)
            where = f"to lag {felt[-1]} and no further" if len(felt) else "nowhere"
            said.append(f"{self.method} brings errors back {where}")
        return "; ".join(said) + "."

    def _norms(self) -> str:
        peak = int(np.nanargmax(self.mean))
        if self.end == "overflowed":
            return f"gradients explode: they leave the range of the numbers after {self.lags} steps"
        start = self.mean[0]
        if not start > 0:
            return "the loss does not depend on the state at all"
        grown = self.mean[peak] / start
        grows = f"grow {grown:.3g} times by lag {peak}, then " if grown > 10 else ""
        if self.fallen is not None:
            return (
                f"gradients {grows}vanish after about {steps_of(self.fallen)} (below "
                f"{percent(self.share)} of their start)"
            )
        if self.end == "vanished":  # at once, as out of a memory of fixed length
            return f"gradients {grows}vanish after {steps_of(self.lags)}, not by degrees"
        left = percent(float(self.mean[-1] / start))
        if grown > 10 and peak > self.lags // 2:
            return f"gradients explode: {grown:.3g} times their start at lag {peak}"
        return (
            f"gradients {grows}reach as far as was measured: after {steps_of(self.lags - 1)} they "
            f"are at {left} of their start"
        )


def measure_reach(
    network: Network,
    trajectory: Trajectory,
    loss: StepLoss,
    *,
    anchors: int,
    lags: int | None,
    depth: int | None,
    tolerance: float,
    share: float,
) -> Reach:
    """Follow errors back; see `bptt.diagnose`."""
    chosen = spread(trajectory.counted(), anchors)
    longest = int(trajectory.history[chosen].max()) + 1
    limit = _limit(lags, depth, longest)
    bounds = table(limit, depth)
    swept = sweep(network, trajectory, chosen, loss, bounds)
    whole = int((trajectory.history[chosen] + 1).max()) <= swept.bounds[-1]
    end: End = (
        "overflowed"
        if swept.overflowed
        else "vanished"
        if swept.vanished
        else "data"
        if whole
        else "asked"
    )
    mean, quantiles = _statistics(swept.norms)
    fallen = _fallen(mean, share)
    depths: tuple[Depth, ...] = ()
    recommended = given = None
    if not swept.overflowed:
        bound = bias_bound(swept, tail=end == "asked")
        depths = _compared(swept, bound)
        recommended = next((d for d in depths if d.bound <= tolerance), None)
        if depth is not None:
            given = _given(depth, swept, bound)
    return Reach(
        len(chosen), mean, quantiles, share, fallen, depths, tolerance, recommended, given, end
    )


def _limit(lags: int | None, depth: int | None, longest: int) -> int:
    for name, value in (("lags", lags), ("depth", depth)):
        if value is None:
            continue
        at_least(1, **{name: value})
        if value > longest:
            raise OptionError(
                f"{name}={value} is beyond the data: the longest sequence has {longest} steps up "
                f"to a counted one. Give {name} of at most {longest}, or longer data (steps= says "
                "how much of it is looked at)."
            )
    if lags is not None and depth is not None and depth > lags:
        raise OptionError(f"depth={depth} is beyond the lags={lags} that are measured.")
    return longest if lags is None else lags


def spread(steps: Tensor, count: int) -> Tensor:
    """``count`` of ``steps``, evenly spread and in order; all of them if there are no more."""
    if len(steps) <= count:
        return steps
    # The middle of each of `count` equal parts.
    place = (torch.arange(count, dtype=torch.float64) + 0.5) * len(steps) / count
    return steps[place.long().to(steps.device)]


def _statistics(norms: Tensor) -> tuple[Floats, Floats]:
    at = torch.tensor(QUANTILES, dtype=norms.dtype)
    return norms.nanmean(dim=1).numpy(), torch.nanquantile(norms, at, dim=1).t().numpy()


def _fallen(mean: Floats, share: float) -> int | None:
    above = np.flatnonzero(mean >= share * mean[0]) if mean[0] > 0 else np.array([], dtype=int)
    first = int(above[-1]) + 1 if len(above) else 0
    return first if first < len(mean) else None


def bias_bound(swept: Swept, tail: bool) -> Floats:
    """The bound δ(K) on the relative bias of depth K = 0 … lags.

    With φ_k = E‖∂loss_t/∂state_{t−k}‖ and a step's ‖∂state/∂θ‖ ≤ M, the copies that depth K leaves
    out hold at most E(K) = M (Σ_{k=K}^{τ−1} φ_k + φ_τ/(1−β)), where φ decays at least
    geometrically, by β a step, from lag τ on; and ‖g‖ ≥ max_k (‖g_k‖ − E(k)). δ(K) is the ratio.
    Here τ is the last lag measured, β the least-squares decay over the last half of the lags, and
    M the smallest constant that holds for every stretch of copies measured.

    Args:
        swept: norms and gradients.
        tail: whether there are lags beyond those measured.
    """
    phi = np.nan_to_num(swept.norms.numpy()).mean(axis=1)
    rest = _geometric_tail(phi) if tail else 0.0
    beyond = np.concatenate([np.cumsum(phi[::-1])[::-1] + rest, [rest]])
    constant = 0.0
    for i in range(1, len(swept.bounds)):
        low, high = swept.bounds[i - 1], swept.bounds[i]
        inside = phi[low:high].sum()
        if inside > 0:
            moved = float((swept.gradients[i] - swept.gradients[i - 1]).norm())
            constant = max(constant, moved / inside)
    error = constant * beyond
    error[beyond == 0] = 0.0
    lower = max(
        float(g.norm()) - error[min(b, len(phi))]
        for b, g in zip(swept.bounds, swept.gradients, strict=True)
    )
    if not lower > 0:
        return np.where(error == 0, 0.0, np.inf)
    return np.asarray(error / lower)


def _geometric_tail(phi: Floats) -> float:
    """Σ of φ past its end, if it goes on to decay as over its last half."""
    last = phi[len(phi) // 2 :]
    known = np.flatnonzero(last > 0)
    if len(known) == 0:
        return 0.0
    if len(known) < 2:
        return float("inf")
    decay = float(np.exp(np.polyfit(known, np.log(last[known]), 1)[0]))
    return float(phi[-1] * decay / (1 - decay)) if decay < 1 else float("inf")


def table(limit: int, depth: int | None) -> list[int]:
    """The depths that are compared: 1, 2, 3, 4, 6, 8, 12, 16, … up to ``limit``, and ``depth``."""
    powers = [2**i for i in range(limit.bit_length())]
    halfway = [3 * power // 2 for power in powers[1:]]
    return sorted({d for d in [*powers, *halfway, limit, depth or limit] if d <= limit})


def _given(depth: int, swept: Swept, bound: Floats) -> Depth:
    """The user's own depth; past where the gradient ended nothing is added."""
    place = next((i for i, b in enumerate(swept.bounds) if b >= depth), -1)
    return _beside(depth, swept.gradients[place], swept.gradients[-1], bound)


def _compared(swept: Swept, bound: Floats) -> tuple[Depth, ...]:
    full = swept.gradients[-1]
    return tuple(
        _beside(b, g, full, bound) for b, g in zip(swept.bounds, swept.gradients, strict=True)
    )


def _beside(depth: int, gradient: Tensor, full: Tensor, bound: Floats) -> Depth:
    size = float(full.norm())
    if not size > 0:
        raise DataError(
            "the full gradient is exactly zero: there is nothing that truncation could miss. Are "
            "all losses at their minimum, or is nothing that is trained used?"
        )
    error = float((gradient - full).norm()) / size
    own = float(gradient.norm())
    cosine = float(gradient @ full) / (own * size) if own > 0 else 0.0
    cosine = min(1.0, max(-1.0, cosine))  # rounding
    return Depth(depth, error, cosine, float(bound[min(depth, len(bound) - 1)]))
