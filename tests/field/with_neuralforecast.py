"""neuralforecast: recurrent forecasters, whose layers are PyTorch's own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from neuralforecast.losses.pytorch import DistributionLoss
from neuralforecast.models import GRU, LSTM, RNN, DeepAR, DilatedRNN
from neuralforecast.models.dilated_rnn import ResLSTMCell
from torch import Tensor, nn

import bptt

from .common import Pair, accelerated, main, twins

LANES, STEPS, HORIZON = 32, 48, 12


# [adapt]
def adapted(model: nn.Module) -> bptt.nn.Report:
    """What to do before ``NeuralForecast([model], freq).fit(table)``."""
    return bptt.accelerate(model)


class ResLSTM(nn.Module):
    """The cell of `DilatedRNN` that is the package's own; a state is (hidden, memory)."""

    def __init__(self, cell: ResLSTMCell, units: int) -> None:
        super().__init__()
        self.cell, self.units = cell, units

    def initial_state(self, batch: int) -> tuple[Tensor, Tensor]:
        return torch.zeros(batch, self.units), torch.zeros(batch, self.units)

    def forward(self, input: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return self.cell(input, state)[1]


# [/adapt]


def case(kind: type[nn.Module], **options: Any) -> Callable[[], Pair]:
    def make() -> Pair:
        common = {"h": HORIZON, "input_size": STEPS, "max_steps": 1, "logger": False}
        model = kind(**common, **options)
        batch = {"insample_y": torch.randn(LANES, STEPS, 1)}
        batch |= dict.fromkeys(("futr_exog", "hist_exog", "stat_exog"))

        def call(one: nn.Module) -> Tensor:
            return one(batch)

        return accelerated(model, adapted, call, STEPS, LANES)

    return make


def residual() -> Pair:
    units = 64
    inputs = torch.randn(STEPS, LANES, units, requires_grad=True)

    def before(one: ResLSTM) -> Tensor:
        state, outputs = one.initial_state(LANES), []
        for input in inputs:
            output, state = one.cell(input, state)
            outputs.append(output)
        return torch.stack(outputs)

    def after(one: ResLSTM) -> Tensor:
        return bptt.unfold(one, inputs)[0]

    return twins(ResLSTM(ResLSTMCell(units, units), units), before, after, STEPS, LANES, [inputs])


CASES = {
    "LSTM": case(LSTM),
    "LSTM, recurrent": case(LSTM, recurrent=True),
    "GRU": case(GRU),
    "RNN": case(RNN),
    "DilatedRNN of LSTM": case(DilatedRNN),
    "DilatedRNN of GRU": case(DilatedRNN, cell_type="GRU"),
    "DilatedRNN of ResLSTM": case(DilatedRNN, cell_type="ResLSTM"),
    "ResLSTM, its cell": residual,
    "DeepAR": case(DeepAR, loss=DistributionLoss("Normal"), trajectory_samples=2),
}

if __name__ == "__main__":
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    main("neuralforecast", CASES)
