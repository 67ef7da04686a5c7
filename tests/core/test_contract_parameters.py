"""Gradients of parameters that are frozen, used twice, captured or not there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bptt

from .contract import METHODS, every_method, stream_for
from .helpers import (
    CELLS,
    F64,
    Network,
    assert_same,
    data,
    gradient_of,
    gradients,
    network,
    only,
    series,
)


def freeze(net: bptt.Network, trained: str) -> bptt.Network:
    for parameter_name, p in net.named_parameters():
        p.requires_grad_(parameter_name.startswith(trained))
    return net


@every_method
@pytest.mark.parametrize("trained", ["cell", "readout", "learned_initial_state"])
def test_frozen_parameters_get_no_gradient_and_the_others_the_same(name: str, trained: str) -> None:
    stream = stream_for(name)
    expected, _ = gradient_of(METHODS[name](), network(learn_initial_state=True), stream)
    net = freeze(network(learn_initial_state=True), trained)
    found, updates = gradient_of(METHODS[name](), net, stream)
    assert updates
    for parameter_name, p in net.named_parameters():
        if p.requires_grad:
            assert_same(found[parameter_name], expected[parameter_name])
        else:
            assert p.grad is None
            assert not found[parameter_name].any()


class Reservoir(nn.Module):
    """A fixed cell: its weights are buffers, only the readout learns."""

    hidden_size = 3

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("enter", data(2, 3))
        self.register_buffer("mix", 0.3 * data(3, 3, seed=4))

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        return torch.tanh(input @ self.enter + state @ self.mix)


@pytest.mark.parametrize("name", ["full", "segments", "carried", "mean", "recomputed", "stored"])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_a_cell_without_parameters_starts_in_the_dtype_of_its_inputs(name: str, loss: str) -> None:
    net = Network(Reservoir(), nn.Linear(3, 3, dtype=F64))
    classes = torch.tensor([0, 2, 1, 0, 1, 2, 2])
    targets = data(7, 3) if loss == "mse" else classes
    stream = bptt.Stream(data(7, 2), targets)
    total, updates = gradient_of(METHODS[name](), net, stream, loss)
    assert sum(u.count for u in updates) >= 7
    assert bool(total["readout.weight"].any())


@pytest.mark.parametrize(("combine", "share"), [("sum", 1.0), ("mean", 1.0 / 7.0)])
def test_a_parameter_used_twice_in_the_cell_is_summed_once(combine: Any, share: float) -> None:
    cell = CELLS["Elman"](2, 2)
    net, stream = Network(bptt.Stack(cell, cell), nn.Linear(2, 1, dtype=F64)), series(7)
    state, predictions, batch = net.initial_state(2), [], only(stream)
    for step in batch.inputs:
        bottom = cell(step, state[0])
        state = (bottom, cell(bottom, state[1]))
        predictions.append(net.readout(state[1]))
    nn.functional.mse_loss(torch.stack(predictions), batch.targets).backward()
    expected = gradients(net)
    net.zero_grad()
    list(bptt.Truncated(7, combine=combine).updates(net, "mse", stream))
    for name, gradient in gradients(net).items():
        assert_same(gradient, (share if name.startswith("cell") else 1.0) * expected[name])


class Borrowing(nn.Module):
    """A cell whose recurrent weights are made of a tensor that is no parameter of it."""

    hidden_size = 2

    def __init__(self, source: Tensor) -> None:
        super().__init__()
        self.inner = nn.RNNCell(2, 2, dtype=F64)
        self.sources = (source,)

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        return self.inner(input, state @ self.sources[0].tanh())


@pytest.mark.filterwarnings("ignore:.*no parameter")
@pytest.mark.parametrize(("combine", "share"), [("sum", 1.0), ("mean", 1.0 / 7.0)])
def test_a_captured_tensor_takes_part(combine: Any, share: float) -> None:
    source = torch.randn(2, 2, dtype=F64, requires_grad=True)
    net, stream = Network(Borrowing(source)), series(7, outputs=2)
    list(bptt.Full().updates(net, "mse", stream))
    expected, source.grad = source.grad, None
    assert expected is not None
    assert bool(expected.all())
    net.zero_grad()
    list(bptt.Truncated(7, combine=combine).updates(net, "mse", stream))
    assert source.grad is not None
    assert_same(source.grad, share * expected)
