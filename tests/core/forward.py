"""What the tests of forward methods share: streams, and networks of every kind of parameter."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import bptt

from .helpers import CELLS, F64, Network, data, network, ragged

STREAMS = {
    "ragged": lambda: ragged([5, 3, 6, 2], lanes=2),
    "batches": lambda: ragged([5, 3, 6], batch=2),
    "horizon": lambda: bptt.Stream(data(13, 2), data(13, 1), lanes=2, horizon=2, burn_in=1),
}


def self_recurrent(**options: Any) -> bptt.Network:
    torch.manual_seed(3)
    return Network(bptt.cells.SelfRecurrent(2, 3, dtype=F64), nn.Linear(3, 1, dtype=F64), **options)


class Choosy(nn.Module):
    """Control flow on data, which no batched transform can follow."""

    hidden_size = 3

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.RNNCell(2, 3, dtype=F64)

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        rows = [
            torch.sin(3.0 * row) if float(row.detach().sum()) > 0.0 else row
            for row in self.step(input, state)
        ]
        return torch.stack(rows)


class Tied(nn.Module):
    """A readout that uses the cell's weight."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, outputs: Tensor) -> Tensor:
        return (outputs @ self.cell.weight_hh).mean(dim=2, keepdim=True)


def variants() -> dict[str, bptt.Network]:
    torch.manual_seed(5)
    cell = CELLS["GRU"](2, 3)
    tied = CELLS["Elman"](2, 3)
    frozen = network("LSTM")
    frozen.cell.weight_ih.requires_grad_(False)
    readout_alone = network("GRU")
    for p in readout_alone.cell.parameters():
        p.requires_grad_(False)
    start_alone = network("GRU", learn_initial_state=True)
    for p in start_alone.cell.parameters():
        p.requires_grad_(False)
    normed = nn.utils.parametrizations.weight_norm(nn.RNNCell(2, 3, dtype=F64), "weight_hh")
    layers = CELLS["Elman"](2, 2)
    return {
        "control flow": Network(Choosy(), nn.Linear(3, 1, dtype=F64)),
        "no readout": Network(CELLS["Elman"](2, 1)),
        "tied": Network(tied, Tied(tied)),
        "twice": Network(bptt.Stack(layers, layers), nn.Linear(2, 1, dtype=F64)),
        "frozen weight": frozen,
        "readout alone": readout_alone,
        "start alone": start_alone,
        "weight norm": Network(normed, nn.Linear(3, 1, dtype=F64)),
        "dropout in eval": Network(
            bptt.Stack(cell, nn.RNNCell(3, 3, dtype=F64)), nn.Linear(3, 1, dtype=F64)
        ).eval(),
    }
