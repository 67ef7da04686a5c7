"""The error of many steps, followed back lag by lag: norms of state gradients and the parameter
gradient of every depth, from one sweep.

Every anchor is a lane. A window of lags is unfolded for all anchors at once, from the states that
the network passed through, and is given the gradient that arrived at its end; the windows go back
in time until the data, the asked lags or the gradient end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bptt.diagnostics._nudged import Nudged, unfold_nudged
from bptt.diagnostics._trajectory import Trajectory
from bptt.losses import StepLoss, cost
from bptt.network import Network
from bptt.state import State, leaves, map_state, select

WINDOW = 128
"""Lags unfolded together, at most; fewer where the state is wide."""
FLOATS = 2**23
"""So many numbers of one kind are held at a time."""
FLOOR = 1e-12
"""The sweep ends where gradients have fallen below this share of their start: what remains is
lost in the rounding of the sum."""


@dataclass(frozen=True)
class Swept:
    """What a sweep found.

    Attributes:
        norms: float64 [lag, anchor]: ‖∂loss_t/∂state_{t−lag}‖, NaN where the sequence is shorter.
        gradients: for each bound that was passed, the mean over anchors of the gradient truncated
            to that many copies of the cell, one flat float64 vector.
        bounds: those depths, increasing; the last is how many lags were swept.
        overflowed: whether the sweep ended because the gradient left the range of its dtype.
        vanished: whether it ended because the gradient fell below `FLOOR`.
    """

    norms: Tensor
    gradients: list[Tensor]
    bounds: list[int]
    overflowed: bool
    vanished: bool


def sweep(
    network: Network,
    trajectory: Trajectory,
    anchors: Tensor,
    loss: StepLoss,
    bounds: Sequence[int],
) -> Swept:
    """Follow the errors of the steps ``anchors`` back through the depths ``bounds``.

    Args:
        network: the network; its parameters that require a gradient are the ones looked at.
        trajectory: where it went.
        anchors: int64 [anchor], steps of ``trajectory`` that count.
        loss: of a step.
        bounds: depths, increasing, at which the truncated gradient is wanted; the last ends the
            sweep.
    """
    state = map_state(lambda leaf: leaf[:1], trajectory.entering)
    nudged = Nudged(network.cell, trajectory.inputs[:1], state)
    parameters: list[Tensor] = [p for p in network.parameters() if p.requires_grad]
    total = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64)
    window = max(1, min(WINDOW, FLOATS // (len(anchors) * (nudged.width + nudged.features))))
    norms: list[Tensor] = []
    found: list[Tensor] = []
    passed: list[int] = []
    copies = trajectory.history[anchors] + 1
    alive = torch.arange(len(anchors), device=anchors.device)
    carry: list[Tensor] | None = None
    overflowed = vanished = False
    low = 0
    for bound in bounds:
        while low < bound and not (overflowed or vanished):
            # The first copy alone: it holds the readout and the loss.
            high = min(bound, low + window) if low else 1
            step = _Window(network, nudged, trajectory, anchors[alive], low, high)
            values, gradient, entering = step.back(loss, carry, parameters)
            rows = values.new_full((high - low, len(anchors)), float("nan"))
            rows[:, alive] = values
            norms.append(rows.to("cpu", torch.float64))
            total = total + gradient / len(anchors)
            low = high
            onward = copies[alive] > high
            alive, carry = alive[onward], [c[onward] for c in entering]
            overflowed = not all(bool(torch.isfinite(c).all()) for c in [gradient, *carry])
            vanished = _vanished(norms, carry)
        found.append(total)
        passed.append(low)
        if overflowed or vanished or not len(alive):
            break
    return Swept(torch.cat(norms), found, passed, overflowed, vanished)


def _vanished(norms: list[Tensor], carry: list[Tensor]) -> bool:
    if not carry or not len(carry[0]):
        return False
    arriving = torch.cat([c.flatten(1).double() for c in carry], dim=1).norm(dim=1).max()
    return bool(arriving <= FLOOR * norms[0].max())


@dataclass(frozen=True)
class _Window:
    """The copies of lags ``low`` to ``high − 1`` before the steps ``anchors``."""

    network: Network
    nudged: Nudged
    trajectory: Trajectory
    anchors: Tensor
    low: int
    high: int

    def back(
        self, loss: StepLoss, carry: list[Tensor] | None, parameters: list[Tensor]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Norms [lag, anchor], the flat gradient summed over anchors, and the gradient of the
        states that entered."""
        path, history = self.trajectory, self.trajectory.history[self.anchors]
        counts = (history + 1).clamp(max=self.high) - self.low
        steps = int(counts.max())
        first = self.anchors - self.low - counts + 1
        place = torch.arange(steps, device=first.device)[:, None]
        rows = first + torch.minimum(place, counts - 1)
        nudges = path.inputs.new_zeros(0, dtype=self.nudged.state_dtype)
        nudges = nudges.new_zeros(steps, len(first), self.nudged.width).requires_grad_()
        lengths = counts if int(counts.min()) < steps else None
        with torch.enable_grad():
            inputs = self.nudged.widen(path.inputs[rows], nudges)
            entry = self._entry(first)
            outputs, last = unfold_nudged(self.network, self.nudged, inputs, entry, lengths)
            if carry is None:
                every = torch.ones(1, len(first), dtype=torch.bool, device=first.device)
                goals = path.targets[self.anchors][None]
                ends = [cost(loss, self.network.read, outputs, goals, every)]
            else:
                ends = leaves(last)
            found = _grad(ends, [nudges, *leaves(entry), *parameters], carry)
        count = len(leaves(entry))
        by_step = torch.linalg.vector_norm(found[0], dim=2, dtype=torch.float64)
        lag = torch.arange(self.high - self.low, device=first.device)[:, None]
        own = (counts - 1 - lag).clamp(min=0)
        norms = torch.where(lag < counts, by_step.gather(0, own), float("nan"))
        gradient = torch.cat([g.flatten().double() for g in found[1 + count :]]).cpu()
        return norms, gradient, list(found[1 : 1 + count])

    def _entry(self, first: Tensor) -> State:
        """The states that entered the steps ``first``; an initial one with its own gradient."""
        path = self.trajectory
        stored = map_state(lambda leaf: leaf[first].detach().requires_grad_(), path.entering)
        if self.network.learned_initial_state is None:
            return stored
        learned = self.network.initial_state(len(first), like=path.inputs)
        return select(path.fresh[first], learned, stored)


def _grad(ends: list[Tensor], sources: list[Tensor], arriving: list[Tensor] | None) -> list[Tensor]:
    """Gradients, zero where nothing depends on a source."""
    given: Sequence[Tensor | None] = [None] * len(ends) if arriving is None else arriving
    pairs = [(e, g) for e, g in zip(ends, given, strict=True) if e.requires_grad]
    found = torch.autograd.grad(
        [e for e, _ in pairs], sources, [g for _, g in pairs], allow_unused=True
    )
    return [torch.zeros_like(s) if g is None else g for s, g in zip(sources, found, strict=True)]
