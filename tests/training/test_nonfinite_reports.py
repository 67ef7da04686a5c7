"""Where something that is not finite came from is told."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import bptt

from .fragile import MARK, METHODS, ONLINE, Fragile, data, fit, keep, network, weights


class TestReports:
    @pytest.mark.parametrize("method", METHODS | ONLINE)
    @pytest.mark.parametrize(("step", "lane"), [(0, 0), (17, 1), (39, 2)])
    def test_step_and_lane(self, step: int, lane: int, method: str) -> None:
        net, held = network(Fragile), []
        before = weights(net)
        how = (METHODS | ONLINE)[method]()
        with pytest.raises(bptt.NonFiniteError) as caught:
            fit(net, data((step, lane)), method=how, callbacks=[keep(held)])
        report = caught.value.report
        assert (report.what, report.step, report.lanes) == ("loss", step, (lane,))
        assert report.start <= step < report.stop
        assert report.update == len(held) + 1
        norms = report.norms
        assert norms.shape == (report.stop - report.start, 3)
        assert torch.isfinite(norms[: step - report.start]).all()
        assert torch.isnan(norms[step - report.start :, lane]).all()
        said = str(caught.value)
        assert f"lane(s) {lane} from step {step} on" in said
        assert f"{step}: nan" in said
        assert torch.equal(weights(net), held[-1] if held else before)
        assert all(p.grad is None for p in net.parameters())

    def test_norms_are_those_of_the_states(self) -> None:
        net = network(Fragile)
        stream = data((20, 1))
        with pytest.raises(bptt.NonFiniteError) as caught:
            fit(net, stream, method=bptt.Full())
        chunk = next(stream.in_order()).chunk(0, 40)
        _, _, states = net.unfold_states(chunk.inputs)
        expected = states.detach().double().norm(dim=2)
        assert torch.allclose(caught.value.report.norms, expected, equal_nan=True)

    def test_a_loss_that_is_not_finite_names_its_lane(self) -> None:
        def loss(prediction: Tensor, target: Tensor) -> Tensor:
            return (prediction - target).square() + torch.where(target == MARK, math.inf, 0.0)

        targets = torch.zeros(40, 3, 1)
        targets[22, 2] = MARK
        stream = bptt.Stream(torch.zeros(40, 3, 1), targets)
        with pytest.raises(bptt.NonFiniteError, match=r"loss inf .*lane\(s\) 2 from step 22 on"):
            fit(network(), stream, loss=loss)

    @pytest.mark.parametrize("name", ["cell.weight_hh", "readout.bias"])
    def test_the_parameter(self, name: str) -> None:
        net = network()
        parameter = dict(net.named_parameters())[name]
        calls = [0]

        def poison(gradient: Tensor) -> Tensor:
            calls[0] += 1
            if calls[0] == 5:
                gradient = gradient.clone()
                gradient.view(-1)[-1] = math.nan
            return gradient

        parameter.register_hook(poison)
        held: list[Tensor] = []
        with pytest.raises(bptt.NonFiniteError, match="gradient norm nan") as caught:
            fit(net, data(), callbacks=[keep(held)])
        assert caught.value.report.parameters == (name,)
        assert caught.value.report.what == "gradient"
        assert name in str(caught.value)
        assert len(held) == 4
        assert torch.equal(weights(net), held[-1])

    def test_lanes_without_states_of_their_own_fault_are_not_named(self) -> None:
        net = network()
        net.cell.weight_hh.register_hook(lambda gradient: gradient / 0)
        with pytest.raises(bptt.NonFiniteError) as caught:
            fit(net, data())
        assert caught.value.report.lanes == ()
        assert caught.value.report.step is None
