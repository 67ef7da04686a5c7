"""The network: a linear model of the last few steps, and what a recurrent cell adds to it.

prediction = linear path (delay line) + gain · correction (recurrent cell)

The linear path is solved by least squares and not trained. The correction's last layer starts at
zero, so that training starts at the linear model and can only be kept where it improves on it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bptt import cells
from bptt.cells._stack import output_of
from bptt.engine.frontend.builtin import register
from bptt.forecasting._linear import Linear
from bptt.forecasting._options import Options
from bptt.network import Network
from bptt.segments import undrawn
from bptt.state import State, initial_state


class Tapped(nn.Module):
    """A tapped delay line beside a recurrent cell.

    Args:
        cell: reads the same input.
        input_size: features of the input.
        taps: how many steps the line holds, the present one among them.

    The state is ``(cell's state, line [lane, taps · input_size], started [lane, 1])``; the output
    [lane, taps · input_size + hidden] is the line, newest step first, and the cell's output. In
    the first step the line is filled with the input, as if it had stood still before.
    """

    def __init__(self, cell: nn.Module, input_size: int, taps: int) -> None:
        super().__init__()
        self.cell = cell
        self.input_size = input_size
        self.taps = taps

    def initial_state(self, batch: int) -> State:
        """The cell's own initial state and an empty line."""
        own = initial_state(self.cell, batch)
        like = next(self.parameters())
        line = like.new_zeros(batch, self.taps * self.input_size)
        return own, line, like.new_zeros(batch, 1)

    def output(self, state: tuple[State, Tensor, Tensor]) -> Tensor:
        """Line and cell together."""
        return torch.cat([state[1], output_of(self.cell, state[0])], dim=1)

    def forward(self, input: Tensor, state: tuple[State, Tensor, Tensor]) -> State:
        """One step."""
        own, line, started = state
        moved = torch.cat([input, line[:, : (self.taps - 1) * self.input_size]], dim=1)
        still = torch.cat([input] * self.taps, dim=1)
        line = started * moved + (1 - started) * still
        return self.cell(input, own), line, torch.ones_like(started)


register(Tapped)


class Readout(nn.Module):
    """``weight · line + bias + gain · correction(hidden)``.

    ``weight``, ``bias`` and ``gain`` are buffers: least squares sets them, not the optimizer. The
    gain is the linear path's error, so that the correction works in units of order one.

    Args:
        line_size: numbers in the delay line.
        hidden_size: units that the correction reads.
    """

    weight: Tensor
    bias: Tensor
    gain: Tensor

    def __init__(self, line_size: int, hidden_size: int) -> None:
        super().__init__()
        self.line_size = line_size
        self.correction = nn.Linear(hidden_size, 1)
        self.reset_parameters()
        self.register_buffer("weight", torch.zeros(1, line_size))
        self.register_buffer("bias", torch.zeros(1))
        self.register_buffer("gain", torch.ones(1))

    def reset_parameters(self) -> None:
        """Put the correction to zero, where training starts."""
        nn.init.zeros_(self.correction.weight)
        nn.init.zeros_(self.correction.bias)

    def forward(self, outputs: Tensor) -> Tensor:
        """Predictions [..., 1] from outputs [..., line_size + hidden_size]."""
        line = outputs[..., : self.line_size]
        return nn.functional.linear(line, self.weight, self.bias) + self.corrected(outputs)

    def corrected(self, outputs: Tensor) -> Tensor:
        """The recurrent part of the prediction, [..., 1]."""
        correction: Tensor = self.correction(outputs[..., self.line_size :])
        return self.gain * correction

    @torch.no_grad()
    def set_linear(self, linear: Linear, gain: float | None = None) -> None:
        """Take the weights of a linear model; lags past its order get none."""
        self.weight.zero_()
        self.weight[0, : len(linear.weight)] = torch.from_numpy(linear.weight).to(self.weight)
        self.bias.fill_(linear.bias)
        if gain is not None:
            self.gain.fill_(gain)


def build(options: Options, features: int, taps: int) -> Network:
    """The network of ``options`` for so many features; its initial weights from the seed."""
    with undrawn():
        torch.manual_seed(options.seed)
        sizes = [features] + [options.hidden] * options.layers
        layers = [_cell(options.cell, sizes[i], sizes[i + 1]) for i in range(options.layers)]
        cell = layers[0] if len(layers) == 1 else cells.Stack(*layers)
        readout = Readout(taps * features, options.hidden)
        return Network(Tapped(cell, features, taps).float(), readout.float())


def _cell(kind: str, features: int, hidden: int) -> nn.Module:
    if kind == "leaky":
        # Time constants from 1 to 16 steps, so that fast and slow units stand side by side.
        return cells.Leaky(features, hidden, time_constant=2 ** torch.linspace(0, 4, hidden))
    if kind == "elman":
        return cells.Elman(features, hidden)
    return cells.GRU(features, hidden) if kind == "gru" else cells.LSTM(features, hidden)
