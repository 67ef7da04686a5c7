"""Layers upon layers, in both directions, over the steps of `Sequences`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import dropout

from bptt.nn._sequences import Sequences, pack, unpack
from bptt.state import State, map_state

Step = Callable[[int, Tensor, State | None, Tensor | None], tuple[Tensor, State, State | None]]
"""Unfold one layer in one direction: its number, inputs, start and resets, all in its own order of
time, to outputs, last state and, if wanted, the states of every step."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How the layers of a call lie.

    Attributes:
        layers: how many lie on top of each other.
        directions: 1, or 2 where each layer also runs from the end.
        dropout: the share of a layer's outputs that the next one misses, 0 outside of training.
    """

    layers: int
    directions: int
    dropout: float


def run(
    step: Step,
    shape: Shape,
    sequences: Sequences,
    starts: Sequence[State | None],
    reset: Tensor | None = None,
) -> tuple[Tensor, State, State | None]:
    """Run all layers, the bottom one first.

    Args:
        step: unfolds one layer in one direction; layer l in direction d is number
            l · directions + d.
        shape: of the layers.
        sequences: the input.
        starts: of each layer and direction; None leaves it to ``step``.
        reset: bool [time, lane].

    Returns:
        The top layer's outputs [time, lane, directions · n], the last states with leaves
        [layer · direction, lane, n], and the states of every step with leaves
        [layer · direction, time, lane, n] if ``step`` gives them.
    """
    turned = sequences.reverse() if shape.directions == 2 else None
    back = None if reset is None or turned is None else turned(_from_behind(reset, sequences))
    inputs, finals, everything = sequences.inputs, [], []
    for layer in range(shape.layers):
        if layer and shape.dropout:
            inputs = _dropped(inputs, shape.dropout, sequences)
        outputs = []
        for direction in range(shape.directions):
            number = layer * shape.directions + direction
            if direction == 0 or turned is None:
                output, final, states = step(number, inputs, starts[number], reset)
            else:
                output, final, states = step(number, turned(inputs), starts[number], back)
                output = turned(output)
                states = None if states is None else map_state(turned, states)
            outputs.append(output)
            finals.append(final)
            everything.append(states)
        inputs = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)
    found = [states for states in everything if states is not None]
    return inputs, _stacked(finals), _stacked(found) if found else None


def each_start(starts: State, count: int) -> list[State]:
    """Leaves [layer · direction, lane, n] as one state for each layer and direction."""
    if isinstance(starts, Tensor):
        return list(starts.unbind(0))
    parts = [each_start(part, count) for part in starts]
    return [tuple([part[i] for part in parts]) for i in range(count)]


def _stacked(states: list[State]) -> State:
    if len(states) == 1:
        return map_state(lambda leaf: leaf.unsqueeze(0), states[0])
    return map_state(lambda *leaves: torch.stack(leaves), states[0], *states[1:])


def _dropped(inputs: Tensor, share: float, sequences: Sequences) -> Tensor:
    """Dropout as PyTorch draws it: for packed sequences over the packed elements alone."""
    if sequences.packed is None:
        return dropout(inputs, share)
    return unpack(dropout(pack(inputs, sequences), share), sequences)


def _from_behind(reset: Tensor, sequences: Sequences) -> Tensor:
    """Resets as the direction from the end meets them.

    A reset before step t parts t − 1 from t. From behind, the first step past that border is t − 1.
    A border past a lane's length parts nothing.
    """
    flags = torch.zeros_like(reset)
    flags[:-1] = reset[1:]
    if sequences.lengths is not None:
        time = torch.arange(1, len(reset) + 1, device=reset.device).unsqueeze(1)
        flags &= time < sequences.lengths.to(reset.device)
    return flags
