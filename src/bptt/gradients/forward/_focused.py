"""Focused backpropagation: units that feed back on themselves alone need no unfolding.

M. C. Mozer, A focused back-propagation algorithm for temporal pattern recognition, Complex
Systems 3 (1989); also in Chauvin and Rumelhart (eds.), Backpropagation (1995). Where unit i sees of
the past only itself, its influence has one number for each of its own parameters θ_i, the
eligibility trace

    e_t = (∂s_t,i/∂s_{t−1,i}) e_{t−1} + ∂s_t,i/∂θ_i,      dE/dθ_i = Σ_t (∂E/∂s_t,i) e_t

and that is exact.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bptt.errors import CellError
from bptt.gradients._local import Local
from bptt.gradients.forward._method import ForwardMethod, Steps, by_time, check_stride, rows
from bptt.state import State, head
from bptt.streams import Stream

PROBES = 3
"""Steps at random inputs and states where the cell's shape is looked at."""


@dataclass
class Focused(ForwardMethod):
    """The exact gradient of self-recurrent units, forward in time, in the memory and work of one
    step.

    It takes cells like `bptt.cells.SelfRecurrent`: one state [lane, hidden], of which unit i
    depends on its own past and its own parameters alone. Every parameter has the units first,
    [hidden, ...].

    Args:
        stride: how many steps between two updates; None: one update a batch.

    Attributes:
        state: the state after the last step of the last pass, detached.

    Raises:
        OptionError: ``stride`` is below 1.
        CellError: at `updates`, the cell's units see one another.
    """

    stride: int | None = 1
    _units: Tensor | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_stride(self.stride)

    @property
    def every(self) -> int | None:
        """The stride."""
        return self.stride

    def check(self, local: Local, stream: Stream) -> None:
        """Refuse cells whose units see one another."""
        name = type(local.network.cell).__name__
        self._units = _units(local, name)
        batch = next(iter(stream.in_order()))
        found = batch.chunk(0, 1).inputs.to(local.like.device)
        one = found[0, :1] if batch.lanes else found.new_zeros(1, *found.shape[2:])
        inputs = one.expand(PROBES, *found.shape[2:])
        # Draws of its own: the caller's generator stays where it stands.
        draws = torch.Generator().manual_seed(0)
        states = torch.randn(PROBES, local.size, generator=draws).to(local.like)
        by_state, by_parameter = local.jacobians(inputs, states)
        other = ~torch.eye(local.size, dtype=torch.bool, device=by_state.device)
        foreign = self._units != torch.arange(local.size, device=by_state.device)[:, None]
        if bool(by_state[:, other].any()):
            raise CellError(
                f"focused backpropagation needs units that feed back on themselves alone, and the "
                f"units of {name} see one another: bptt.cells.SelfRecurrent does not. RTRL() is "
                "exact for any cell, and so is Full()."
            )
        if bool(by_parameter[:, foreign].any()):
            raise CellError(
                f"focused backpropagation needs parameters of one unit each, and one of {name} "
                "moves several. RTRL() is exact for any cell, and so is Full()."
            )

    def numbers(self, local: Local) -> int:
        """Both diagonals."""
        return local.size + local.count

    def first(self, local: Local, lanes: int, influence: Tensor | None, steps: Steps) -> State:
        """The influence of each parameter on its unit."""
        if influence is None:
            return steps.states.new_zeros(lanes, local.count)
        assert self._units is not None
        return influence.gather(1, self._units.expand(lanes, 1, -1))[:, 0]

    def prepare(self, local: Local, steps: Steps) -> Any:
        """The diagonals of both Jacobians: an error of one at every unit reaches each of its
        parameters once."""
        ones = torch.ones_like(steps.states).flatten(0, 1)
        return tuple(by_time(found, steps) for found in local.pull(*rows(steps), ones))

    def next(self, local: Local, steps: Steps, prepared: Any, t: int, trace: State) -> State:
        """e ← (∂s'/∂s) e + ∂s'/∂θ."""
        by_state, by_parameter = prepared
        decay: Tensor = by_state[t][:, self._units]
        own: Tensor = by_parameter[t]
        return decay * head(trace) + own

    def gradient(self, errors: Tensor, trace: State) -> Tensor:
        """Σ over lanes of (∂E/∂s) e."""
        return (errors[:, self._units] * head(trace)).sum(0)


def _units(local: Local, name: str) -> Tensor:
    """The unit that each parameter belongs to, [count]."""
    found = []
    for parameter, shape in local.shapes:
        if not shape or shape[0] != local.size:
            raise CellError(
                f"focused backpropagation needs parameters with the {local.size} units first, and "
                f"{parameter} of {name} has the shape {list(shape)}: bptt.cells.SelfRecurrent is "
                "such a cell. RTRL() is exact for any cell, and so is Full()."
            )
        each = shape.numel() // shape[0]
        found.append(torch.arange(local.size).repeat_interleave(each))
    units = torch.cat(found) if found else torch.zeros(0, dtype=torch.long)
    return units.to(local.like.device)
