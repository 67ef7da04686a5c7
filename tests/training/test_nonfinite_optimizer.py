"""What an optimizer makes of finite gradients that is not finite never stays in the weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import bptt

from .fragile import Exploding, data, fit, keep, network, weights


class TestTheOptimizer:
    @pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
    def test_its_own_nan_never_stays_in_the_weights(self, poison: float) -> None:
        net = network()
        optimizer = Exploding(net.parameters(), 0.05)
        optimizer.poison = poison
        held: list[Tensor] = []
        with pytest.raises(bptt.NonFiniteError, match="the optimizer's step gives") as caught:
            fit(net, data(), optimizer=optimizer, callbacks=[keep(held)])
        assert caught.value.report.what == "weights"
        assert len(caught.value.report.parameters) == 1
        assert len(held) == 2
        assert torch.equal(weights(net), held[-1])

    def test_lbfgs(self) -> None:
        net = network()
        optimizer = torch.optim.LBFGS(net.parameters(), lr=1e30, max_iter=4)
        before = weights(net)
        with pytest.raises(bptt.NonFiniteError):
            fit(net, data(), method=bptt.Full(), optimizer=optimizer, epochs=9)
        assert torch.isfinite(weights(net)).all()
        assert before.shape == weights(net).shape

    def test_huge_weights_are_not_mistaken(self) -> None:
        net = network()
        with torch.no_grad():
            net.readout.bias.fill_(1e25)  # its square overflows float32
        huge = bptt.Stream(torch.zeros(12, 1, 1), torch.full((12, 1, 1), 1e25))
        fit(net, huge, loss=lambda p, t: (p / 1e25 - t / 1e25).square())

    def test_adam_without_epsilon(self) -> None:
        net = network()
        optimizer = torch.optim.Adam(net.parameters(), eps=0.0)
        still = bptt.Stream(torch.zeros(12, 1, 1), torch.zeros(12, 1, 1))
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.zero_()
        with pytest.raises(bptt.NonFiniteError, match="the optimizer's step"):
            fit(net, still, optimizer=optimizer)
        assert torch.equal(weights(net), torch.zeros_like(weights(net)))
