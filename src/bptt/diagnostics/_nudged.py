"""A cell whose every new state can be nudged: the gradient of the nudge is that of the state."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor, nn

from bptt.cells._stack import output_of
from bptt.network import Network
from bptt.state import State, initial_state, leaves, map_state
from bptt.unfold import unfold


class Nudged(nn.Module):
    """``state' = cell(input, state) + nudge``, the nudge being further features of the input.

    With nudges of zero it is the cell itself, and ∂loss/∂nudge_s = ∂loss/∂state_s, whichever
    executor runs it and however the state is nested. Inputs are [lane, features + state width];
    `widen` makes them.

    Args:
        cell: the cell.
        input: one input of the cell, [any, ...], for its shape and dtype.
        state: one state, for its nesting and shapes.
    """

    def __init__(self, cell: nn.Module, input: Tensor, state: State) -> None:
        super().__init__()
        self.cell = cell
        self.shape = tuple(input.shape[1:])
        self.features = math.prod(self.shape)
        self.dtype = input.dtype
        self.sizes = [tuple(leaf.shape[1:]) for leaf in leaves(state)]
        self.state_dtype = leaves(state)[0].dtype
        if getattr(cell, "output", None) is not None:
            self.output = self._output

    @property
    def width(self) -> int:
        """Numbers in the state of one lane."""
        return sum(math.prod(size) for size in self.sizes)

    def widen(self, inputs: Tensor, nudges: Tensor) -> Tensor:
        """Inputs [time, lane, ...] with their nudges [time, lane, width]; indices become floating,
        exactly up to 2²⁴."""
        flat = inputs.reshape(*inputs.shape[:2], self.features).to(self.state_dtype)
        return torch.cat([flat, nudges], dim=2)

    def initial_state(self, batch: int) -> State:
        """The cell's own."""
        return initial_state(self.cell, batch)

    def forward(self, input: Tensor, state: State) -> State:
        """One step."""
        own = input[:, : self.features]
        if len(self.shape) != 1:
            own = own.reshape(len(input), *self.shape)
        if self.dtype != input.dtype:
            own = own.to(self.dtype)
        new: State = self.cell(own, state)
        offset = self.features
        places = []
        for size in self.sizes:
            places.append((offset, offset + math.prod(size)))
            offset += math.prod(size)
        place = iter(places)

        def nudge(leaf: Tensor) -> Tensor:
            low, high = next(place)
            by = input[:, low:high]
            return leaf + (by if leaf.dim() == 2 else by.reshape(leaf.shape))

        return map_state(nudge, new)

    def _output(self, state: State) -> Tensor:
        return output_of(self.cell, state)


def unfold_nudged(
    network: Network, nudged: Nudged, inputs: Tensor, state: State, lengths: Tensor | None
) -> tuple[Tensor, State]:
    """`bptt.unfold` of the nudged cell from ``state``; where the engine has no program for it, the
    Python loop runs without a word."""
    backend = "eager" if network.backend == "eager" else "auto"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Nudged is unfolded by a Python loop")
        return unfold(nudged, inputs, state, initial=state, lengths=lengths, backend=backend)
