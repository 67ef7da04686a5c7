"""snntorch: leaky and synaptic neurons that spike, and a spiking LSTM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import snntorch
import torch
from torch import Tensor, nn

import bptt

from .common import Pair, main, twins

INPUTS, UNITS = 20, 64


# [adapt]
class Spiking(nn.Module):
    """A layer of any neuron as the package has it: it spikes first, and gives its states after."""

    def __init__(self, inputs: int, units: int, neuron: nn.Module, states: int) -> None:
        super().__init__()
        own = isinstance(neuron, snntorch.SLSTM)  # which has weights of its own
        self.fc = nn.Identity() if own else nn.Linear(inputs, units)
        self.neuron, self.units, self.states = neuron, units, states

    def initial_state(self, batch: int) -> Any:
        return tuple(torch.zeros(batch, self.units) for _ in range(1 + self.states))

    def forward(self, input: Tensor, state: Any) -> Any:
        return tuple(self.neuron(self.fc(input), *state[1:]))


class Leaky(nn.Module):
    """`snntorch.Leaky` in lines without attributes that change: its state is the membrane alone.

    Spikes are read from the membranes of all steps at once; the reset carries no gradient.
    """

    def __init__(self, inputs: int, neuron: snntorch.Leaky, units: int) -> None:
        super().__init__()
        self.fc, self.neuron, self.hidden_size = nn.Linear(inputs, units), neuron, units

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        threshold = self.neuron.threshold
        reset = (state.detach() > threshold).to(state.dtype)
        return self.neuron.beta.clamp(0, 1) * state + self.fc(input) - reset * threshold

    def output(self, state: Tensor) -> Tensor:
        return self.neuron.fire(state)


# [/adapt]


def smooth(shift: Tensor) -> Tensor:
    """A spike whose gradient is that of a sigmoid, of plain operators and in any dtype."""
    soft = torch.sigmoid(5 * shift)
    return soft + ((shift > 0).to(shift.dtype) - soft).detach()


def loop(cell: nn.Module, inputs: Tensor, state: Any) -> Tensor:
    spikes = []
    for input in inputs:
        spike, *state = cell.neuron(cell.fc(input), *state)
        spikes.append(spike)
    return torch.stack(spikes)


def as_it_is(kind: Callable[..., nn.Module], steps: int, lanes: int, states: int) -> Any:
    def make() -> Pair:
        cell = Spiking(INPUTS, UNITS, kind(spike_grad=smooth), states)
        inputs = torch.randn(steps, lanes, INPUTS, requires_grad=True)

        def before(one: nn.Module) -> Tensor:
            return loop(one, inputs, one.initial_state(lanes)[1:])

        def after(one: nn.Module) -> Tensor:
            return bptt.unfold(one, inputs)[0]

        return twins(cell, before, after, steps, lanes, [inputs])

    return make


def in_lines(steps: int, lanes: int) -> Callable[[], Pair]:
    def make() -> Pair:
        cell = Leaky(INPUTS, snntorch.Leaky(0.9, spike_grad=smooth, learn_beta=True), UNITS)
        inputs = torch.randn(steps, lanes, INPUTS, requires_grad=True)

        def before(one: Leaky) -> Tensor:
            return loop(one, inputs, [torch.zeros(lanes, UNITS)])

        def after(one: Leaky) -> Tensor:
            return bptt.unfold(one, inputs)[0]

        return twins(cell, before, after, steps, lanes, [inputs])

    return make


def leaky(**options: Any) -> nn.Module:
    return snntorch.Leaky(0.9, learn_beta=True, **options)


def synaptic(**options: Any) -> nn.Module:
    return snntorch.Synaptic(0.8, 0.9, learn_alpha=True, learn_beta=True, **options)


def slstm(**options: Any) -> nn.Module:
    return snntorch.SLSTM(INPUTS, UNITS, threshold=0.2, **options)


CASES = {
    "Leaky": as_it_is(leaky, 50, 16, 1),
    "Synaptic": as_it_is(synaptic, 50, 16, 2),
    "SLSTM": as_it_is(slstm, 50, 16, 2),
    "Leaky, in lines": in_lines(50, 16),
    "Leaky, in lines, one lane": in_lines(200, 1),
}

if __name__ == "__main__":
    main("snntorch", CASES)
