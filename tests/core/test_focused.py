"""Focused backpropagation is `Full` for self-recurrent units, and is refused for others."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import bptt

from .forward import STREAMS, self_recurrent
from .helpers import F64, Network, assert_same, gradient_of, network, series


@pytest.mark.parametrize("stride", [1, 4, None])
@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("learned", [False, True])
def test_focused_backpropagation_is_full_for_self_recurrent_units(
    stride: int | None, name: str, learned: bool
) -> None:
    net, stream = self_recurrent(learn_initial_state=learned), STREAMS[name]()
    expected, _ = gradient_of(bptt.Full(), net, stream)
    found, _ = gradient_of(bptt.Focused(stride), net, stream)
    assert_same(found, expected)


class Independent(nn.Module):
    """Units with their own recurrent weight inside the nonlinearity (Li et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden_size = 3
        self.x, self.u = nn.Linear(2, 3, dtype=F64), nn.Parameter(torch.rand(3, dtype=F64))

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        return torch.tanh(self.x(input) + self.u * state)


def test_focused_backpropagation_takes_any_cell_of_self_recurrent_units() -> None:
    net, stream = Network(Independent(), nn.Linear(3, 1, dtype=F64)), STREAMS["ragged"]()
    expected, _ = gradient_of(bptt.Full(), net, stream)
    assert_same(gradient_of(bptt.Focused(2), net, stream)[0], expected)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("GRU", r"weight_ih of GRU has the shape \[9, 2\].*SelfRecurrent.*RTRL\(\)"),
        ("Elman", r"the units of Elman see one another.*SelfRecurrent.*RTRL\(\)"),
    ],
)
def test_focused_backpropagation_is_refused_where_units_see_one_another(
    kind: str, message: str
) -> None:
    with pytest.raises(bptt.CellError, match=message):
        bptt.Focused().updates(network(kind), "mse", series(5))


class Shifted(nn.Module):
    """Diagonal, but each parameter moves its neighbour."""

    hidden_size = 3

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.rand(3, dtype=F64))

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        return 0.5 * state + input[:, :1] * self.bias.roll(1)


def test_focused_backpropagation_is_refused_where_a_parameter_moves_another_unit() -> None:
    net = Network(Shifted(), nn.Linear(3, 1, dtype=F64))
    with pytest.raises(bptt.CellError, match="one of Shifted moves several"):
        bptt.Focused().updates(net, "mse", series(5))
