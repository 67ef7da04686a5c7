"""Cells of one layer and of several, and the dtype that they are compared in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bptt import cells

DOUBLE: dict[str, Any] = {"dtype": torch.float64}


class Sine(nn.Linear):
    """Of its results the core knows nothing."""

    def forward(self, input: Tensor) -> Tensor:
        return torch.sin(super().forward(input))


def embedded() -> nn.Module:
    """Runs in parts, with two leaves of the state."""
    return cells.Embedded(Sine(3, 4), cells.Stack(cells.GRU(4, 5), cells.GRU(5, 2)))


CELLS: dict[str, Callable[[], nn.Module]] = {
    "gru": lambda: nn.GRUCell(3, 5),
    "narrow": lambda: nn.GRUCell(3, 1),
    "lstm": lambda: cells.LSTM(3, 4),
    "stack": lambda: cells.Stack(cells.GRU(3, 5), cells.LSTM(5, 4)),
    "embedded": embedded,
}
