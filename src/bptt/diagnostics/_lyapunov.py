"""Lyapunov exponents along a trajectory, by the QR method.

Sources: G. Benettin, L. Galgani, A. Giorgilli and J.-M. Strelcyn, Meccanica 15 (1980); for
recurrent networks R. Engelken, F. Wolf and L. F. Abbott, Lyapunov spectra of chaotic recurrent
neural networks, Physical Review Research 5 (2023).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from bptt.diagnostics._jacobian import FLOATS, jacobian, push
from bptt.diagnostics._trajectory import Trajectory
from bptt.state import leaves, map_state

SPREAD = 15.0
"""The frame is made orthonormal again before its directions grow apart by more than e to this."""
LONGEST = 10
"""At the latest after so many steps."""
WHOLE = 256
"""Up to this many numbers in a state, Jacobians are made whole, for many steps at once."""


@dataclass(frozen=True)
class Stretches:
    """How the frame grew.

    Attributes:
        logs: float64 [interval, run, direction]: log |R_ii|, per step; −∞ where a direction is
            lost. Their mean is the exponent; with a whole frame their sum over directions is the
            mean of log |det J| over the interval.
        every: steps of an interval.
    """

    logs: Tensor
    every: int


def stretches(
    cell: nn.Module, trajectory: Trajectory, runs: Tensor, count: int, settling: int
) -> Stretches:
    """Follow an orthonormal frame Q of ``count`` directions: J Q = Q' R, and so on from Q'.

    Args:
        cell: the cell.
        trajectory: where it went.
        runs: int64 [step, run]: steps of ``trajectory``, one after the other.
        count: how many directions.
        settling: so many first steps turn the frame and are not counted.
    """
    with _few_threads(trajectory.width):
        return _followed(cell, trajectory, runs, count, settling)


@contextmanager
def _few_threads(width: int) -> Iterator[None]:
    """One thread for small frames, thousands of which are moved one after the other: a second one
    only waits, and on a busy machine it waits long."""
    threads = torch.get_num_threads()
    if width <= WHOLE:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _followed(
    cell: nn.Module, trajectory: Trajectory, runs: Tensor, count: int, settling: int
) -> Stretches:
    draws = torch.Generator().manual_seed(0)
    start = torch.randn(runs.shape[1], trajectory.width, count, generator=draws)
    frame = torch.linalg.qr(start.to(runs.device, torch.float64))[0]
    spread, every, waiting = 0.0, 1, 0
    found = []
    for step, move in enumerate(_moves(cell, trajectory, runs, count)):
        frame = move(frame)
        waiting += 1
        if waiting < every and step >= settling:
            continue
        frame, logs = _orthonormal(frame)
        if step < settling:
            spread = max(spread, float((logs.amax(dim=1) - logs.amin(dim=1)).max()))
            every = max(1, min(LONGEST, int(SPREAD / spread))) if spread > 0 else 1
        else:
            found.append(logs / waiting)
        waiting = 0
    return Stretches(torch.stack(found), every)


def _orthonormal(moved: Tensor) -> tuple[Tensor, Tensor]:
    """Q and log |R_ii| of J Q; what is no larger than rounding counts as zero."""
    frame, triangle = torch.linalg.qr(moved)
    grown = triangle.diagonal(dim1=1, dim2=2).abs()
    floor = moved.shape[1] * torch.finfo(moved.dtype).eps * grown.amax(dim=1, keepdim=True)
    return frame, torch.where(grown <= floor, 0.0, grown).log()


def _moves(
    cell: nn.Module, trajectory: Trajectory, runs: Tensor, count: int
) -> Iterator[Callable[[Tensor], Tensor]]:
    """For each step the function that moves the frames [run, width, direction]."""
    width, lanes = trajectory.width, runs.shape[1]
    if width > WHOLE and 2 * count <= width:
        for rows in runs:
            yield partial(_along, cell, trajectory, rows)
        return
    for part in torch.split(runs, max(1, FLOATS // (width**2 * lanes))):
        whole = jacobian(cell, trajectory, part.flatten()).reshape(*part.shape, width, width)
        for now in whole:
            yield partial(torch.matmul, now)


def _along(cell: nn.Module, trajectory: Trajectory, rows: Tensor, frame: Tensor) -> Tensor:
    state = map_state(lambda leaf: leaf[rows], trajectory.entering)
    given = frame.to(leaves(state)[0].dtype)
    return push(cell, trajectory.inputs[rows], state, given).double()
