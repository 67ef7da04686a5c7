"""Cells and data of the tests."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import bptt
from bptt.network import Network


class Linear(nn.Module):
    """``s' = A s + x + θ d``, all trained."""

    def __init__(self, matrix: Tensor, bias: bool = False, drive: Tensor | None = None) -> None:
        super().__init__()
        self.hidden_size = len(matrix)
        self.matrix = nn.Parameter(matrix.clone())
        if drive is None:
            drive = matrix.new_ones(len(matrix))
        self.register_buffer("drive", drive)
        theta = matrix.new_zeros(1)
        self.bias = nn.Parameter(theta) if bias or not bool((drive == 1).all()) else None

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        new = state @ self.matrix.t() + input
        return new if self.bias is None else new + self.bias * self.drive


class Shape(nn.Module):
    """A state of three dimensions, which no step program holds."""

    hidden = (2, 3)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 3) / 2)

    def initial_state(self, batch: int) -> Tensor:
        return self.weight.new_zeros(batch, *self.hidden)

    def output(self, state: Tensor) -> Tensor:
        return state.flatten(1)

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        return torch.tanh(state @ self.weight + input[:, None, :])


def every_cell() -> list[Callable[[], nn.Module]]:
    return [
        lambda: bptt.cells.Elman(3, 4),
        lambda: bptt.cells.GRU(3, 4),
        lambda: bptt.cells.LSTM(3, 4),
        lambda: nn.LSTMCell(3, 4),
        lambda: bptt.Stack(bptt.cells.GRU(3, 4), bptt.cells.Leaky(4, 2, rate=0.5)),
        Shape,
    ]


def data(steps: int) -> tuple[Tensor, Tensor]:
    return torch.randn(steps, 1, 3).double(), torch.randn(steps, 1, 2).double()


def ragged(features: int) -> list[Tensor]:
    """Sequences of unequal length."""
    generator = torch.Generator().manual_seed(features)
    lengths = (9, 5, 14, 2)
    return [torch.randn(n, features, generator=generator, dtype=torch.float64) for n in lengths]


def small_network() -> Network:
    return Network(bptt.cells.GRU(3, 4), nn.Linear(4, 2), True).double()
