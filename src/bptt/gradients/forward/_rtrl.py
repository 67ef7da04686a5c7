"""Real-time recurrent learning: the exact gradient, carried forward.

R. J. Williams and D. Zipser, A learning algorithm for continually running fully recurrent neural
networks, Neural Computation 1 (1989): with the influence S_t = ∂s_t/∂θ [state, parameter],

    S_t = (∂f/∂s) S_{t−1} + ∂f/∂θ,      dE/dθ = Σ_t (∂E/∂s_t) S_t

Each column of S_t is a Jacobian–vector product; all of them are one batched product per lane.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bptt.errors import OptionError, at_least
from bptt.gradients._local import Local
from bptt.gradients.forward._method import ForwardMethod, Steps, by_time, check_stride, rows
from bptt.segments import available, readable
from bptt.state import State, head
from bptt.streams import Stream

COPIES = 4
"""How many arrays of the influence's size are held at a time: before, after, and a step's own."""


@dataclass
class RTRL(ForwardMethod):
    """Exact forward mode: the gradient of full backpropagation, with nothing kept of the past.

    With the weights held fixed it is the gradient of `Full`, whatever the stride. Between updates
    the influence is carried on: it is then of the weights as they were, the usual practice.

    Memory is lanes · state · parameters numbers, about hidden³ for one layer, whatever the length;
    work is lanes · state² · parameters per step, about hidden⁴. It is refused with the estimate
    where that exceeds memory.

    Args:
        stride: how many steps between two updates; None: one update a batch.
        memory: bytes that may be used; default: what the machine has free.

    Attributes:
        state: the state after the last step of the last pass, detached.

    Raises:
        OptionError: an option is out of range; at `updates`, memory does not suffice.
        CellError: at `updates`, the cell is stochastic, mixes lanes, or changes its buffers.
    """

    stride: int | None = 1
    memory: int | None = None

    def __post_init__(self) -> None:
        check_stride(self.stride)
        if self.memory is not None:
            at_least(1, memory=self.memory)

    @property
    def every(self) -> int | None:
        """The stride."""
        return self.stride

    def check(self, local: Local, stream: Stream) -> None:
        """Refuse what memory cannot hold."""
        lanes = next(iter(stream.in_order())).lanes
        influence = lanes * local.size * local.count
        needed, free = COPIES * influence * local.bytes, self.memory or available(local.like.device)
        if needed > free:
            raise OptionError(
                f"RTRL would need {readable(needed)} and {influence * local.size:.2g} "
                f"multiplications a step, for {lanes} lane(s) of {local.size} state numbers and "
                f"{local.count} parameters (it grows with hidden³ and hidden⁴), and "
                f"{readable(free)} may be used: take fewer lanes or units, UORO(), whose memory is "
                "that of the parameters, or Truncated(depth)."
            )

    def numbers(self, local: Local) -> int:
        """Both Jacobians."""
        return local.size * (local.size + local.count)

    def first(self, local: Local, lanes: int, influence: Tensor | None, steps: Steps) -> State:
        """The influence itself."""
        if influence is None:
            return steps.states.new_zeros(lanes, local.size, local.count)
        return influence

    def prepare(self, local: Local, steps: Steps) -> Any:
        """The Jacobians of every step and lane."""
        return tuple(by_time(found, steps) for found in local.jacobians(*rows(steps)))

    def next(self, local: Local, steps: Steps, prepared: Any, t: int, trace: State) -> State:
        """S ← (∂f/∂s) S + ∂f/∂θ."""
        by_state, by_parameter = prepared
        return torch.baddbmm(by_parameter[t], by_state[t], head(trace))

    def gradient(self, errors: Tensor, trace: State) -> Tensor:
        """Σ over lanes of (∂E/∂s) S."""
        influence = head(trace)
        return errors.reshape(-1) @ influence.reshape(errors.numel(), -1)
