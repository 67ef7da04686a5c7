"""The network: a recurrent cell and a linear readout, which adds to a linear model.

prediction = linear model + gain · network(features)

In prediction the features are what the linear model reads at the present step, the targets a season
ago, and what the linear model predicts; in simulation, the inputs alone. The readout starts at
zero: training starts at the linear model, in simulation at the training mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from bptt import cells
from bptt.forecasting.linear._linear import Part
from bptt.forecasting.model._options import Options
from bptt.network import Network
from bptt.segments import undrawn


class Readout(nn.Linear):
    """A linear readout that starts at zero."""

    def reset_parameters(self) -> None:
        """Put weights and bias to zero."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class Weights(nn.Module):
    """All that a run stores: the network, and the linear model's weights as they are, in float64.

    Args:
        network: the network.
        parts: of the linear model.
    """

    def __init__(self, network: Network, parts: Sequence[Part]) -> None:
        super().__init__()
        self.network = network
        for i, part in enumerate(parts):
            self.register_buffer(f"linear_{i}", torch.from_numpy(part.weight.copy()))


def build(options: Options, features: int) -> Network:
    """The network of ``options`` for so many features; its initial weights from the seed."""
    with undrawn():
        torch.manual_seed(options.seed)
        sizes = [features] + [options.hidden] * options.layers
        layers = [_cell(options.cell, sizes[i], sizes[i + 1]) for i in range(options.layers)]
        cell = layers[0] if len(layers) == 1 else cells.Stack(*layers)
        readout = Readout(options.hidden, 1)
        # A simulation knows nothing of what was before its first row.
        return Network(cell.float(), readout.float(), learn_initial_state=options.simulate)


def _cell(kind: str, features: int, hidden: int) -> nn.Module:
    if kind == "leaky":
        # Time constants from 1 to 16 steps, so that fast and slow units stand side by side.
        return cells.Leaky(features, hidden, time_constant=2 ** torch.linspace(0, 4, hidden))
    if kind == "elman":
        return cells.Elman(features, hidden)
    if kind == "state-space":
        return cells.StateSpace(features, hidden)
    return cells.GRU(features, hidden) if kind == "gru" else cells.LSTM(features, hidden)
