"""Forward mode on every cell of the zoo: exact RTRL against backpropagation by the native core."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import bptt

from .zoo import ZOO


@pytest.mark.parametrize("name", ZOO)
def test_rtrl_is_backpropagation_through_time(name: str) -> None:
    torch.manual_seed(1)
    cell = ZOO[name](2, 4).double()
    readout = nn.Linear(4, 1, dtype=torch.float64)
    lengths = [6, 3, 4]
    inputs = [torch.randn(n, 2, dtype=torch.float64) for n in lengths]
    targets = [torch.randn(n, 1, dtype=torch.float64) for n in lengths]
    stream = bptt.Stream(inputs, targets, lanes=2)
    network = bptt.Network(cell, readout, learn_initial_state=True, backend="native")
    next(bptt.Full().updates(network, "mse", stream))
    expected = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    next(bptt.RTRL(None).updates(network, "mse", stream))
    found = [p.grad for p in network.parameters()]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
