"""Unbiased online recurrent optimisation: the influence as a random product of two vectors.

C. Tallec and Y. Ollivier, Unbiased online recurrent optimization, ICLR 2018 (arXiv 1702.05043),
algorithm 1. With random signs ν, s̃ [state] and θ̃ [parameter], and for every lane

    s̃ ← ρ₀ (∂f/∂s) s̃ + ρ₁ ν,      θ̃ ← θ̃ / ρ₀ + νᵀ(∂f/∂θ) / ρ₁

the mean of s̃ θ̃ᵀ over ν is ∂s_t/∂θ. ρ₀ and ρ₁ balance the norms, which keeps the variance low.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bptt.errors import OptionError
from bptt.gradients._local import Local
from bptt.gradients.forward._method import (
    ForwardMethod,
    Steps,
    by_time,
    check_seed,
    check_stride,
    rows,
)
from bptt.state import State
from bptt.streams import Stream

TINY = 1e-7
"""Keeps the ratios of norms finite where a vector is zero."""


@dataclass
class UORO(ForwardMethod):
    """Online and unbiased: a gradient that is right on average, at the price of noise, in the
    memory of the parameters alone.

    With the weights held fixed its mean over seeds is the gradient of `Full`.

    Args:
        stride: how many steps between two updates; None: one update a batch.
        seed: of the random signs; they depend on it, the epoch and the place alone.

    Attributes:
        state: the state after the last step of the last pass, detached.

    Raises:
        OptionError: an option is out of range.
        CellError: at `updates`, the cell is stochastic, mixes lanes, or changes its buffers.
    """

    stride: int | None = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check_stride(self.stride)
        check_seed(self.seed)

    @property
    def every(self) -> int | None:
        """The stride."""
        return self.stride

    def check(self, local: Local, stream: Stream) -> None:
        """Refuse a part of a stream: what can be carried can be carried so, but the signs of a lane
        are drawn with those of all others."""
        if stream.is_part:
            raise OptionError(
                "UORO draws the random signs of all lanes together, and several processes have "
                "some lanes each: train with one process, or by RTRL() or Truncated()."
            )

    def numbers(self, local: Local) -> int:
        """The signs and their products."""
        return local.size + local.count

    def first(self, local: Local, lanes: int, influence: Tensor | None, steps: Steps) -> State:
        """Random signs, and their product with the influence; zero where that is zero."""
        if influence is None:
            zeros = steps.states.new_zeros
            return zeros(lanes, local.size), zeros(lanes, local.count)
        signs = _signs(influence[..., 0], steps.generator(self.seed, 1))
        return _balanced(signs, torch.einsum("bn,bnp->bp", signs, influence))

    def prepare(self, local: Local, steps: Steps) -> Any:
        """The signs of every step, and their products with ∂f/∂θ."""
        signs = _signs(steps.states, steps.generator(self.seed, 0))
        _, pulled = local.pull(*rows(steps), signs.flatten(0, 1))
        return signs, by_time(pulled, steps)

    def next(self, local: Local, steps: Steps, prepared: Any, t: int, trace: State) -> State:
        """Algorithm 1, for each lane."""
        signs, pulled = prepared[0][t], prepared[1][t]
        tangent, dual = trace
        assert isinstance(tangent, Tensor)
        assert isinstance(dual, Tensor)
        pushed = local.push(steps.inputs[t], steps.states[t], tangent)
        old, new = _balanced(pushed, dual), _balanced(signs, pulled)
        return old[0] + new[0], old[1] + new[1]

    def gradient(self, errors: Tensor, trace: State) -> Tensor:
        """Σ over lanes of ⟨∂E/∂s, s̃⟩ θ̃."""
        tangent, dual = trace
        assert isinstance(tangent, Tensor)
        assert isinstance(dual, Tensor)
        return (errors * tangent).sum(1) @ dual


def _balanced(tangent: Tensor, dual: Tensor) -> tuple[Tensor, Tensor]:
    """The same product of two vectors, their norms made equal."""
    norms = dual.norm(dim=1, keepdim=True), tangent.norm(dim=1, keepdim=True)
    ratio = torch.sqrt(norms[0] / (norms[1] + TINY)) + TINY
    return tangent * ratio, dual / ratio


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    """+1 and −1, as likely as each other."""
    bits = torch.randint(0, 2, like.shape, generator=generator)
    return (2 * bits - 1).to(like)
