"""Whatever changes between two steps is seen: in the network, its optimizer, and their hooks."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from tests.online.test_fit import assert_alike, data, network, sgd
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

import bptt

from .steps import fed

pytest.importorskip("bptt._core")


def test_a_change_of_the_network_is_seen() -> None:
    x, y = data(40)
    nets = network(), network()
    nets[1].backend = "eager"
    for net in nets:
        learner = bptt.Online(net, bptt.SlidingWindow(4), "mse", sgd)
        fed(learner, range(20), x, y)
        learner.optimizer.param_groups[0]["lr"] = 0.01
        net.cell.bias_hh.requires_grad_(False)
        with torch.no_grad():
            net.cell.weight_hh.mul_(0.5)
        fed(learner, range(20, 40), x, y)
    assert_alike(*nets)


def _moved(net: bptt.Network) -> None:
    net.cell.weight_hh.data = net.cell.weight_hh.data.clone()


def _turned(net: bptt.Network) -> None:
    net.cell.weight_hh.data = net.cell.weight_hh.data.t()


def _scaled(net: bptt.Network) -> None:
    with torch.no_grad():
        net.cell.weight_hh.mul_(0.5)


def _shifted(net: bptt.Network) -> None:
    net.readout.bias.data.add_(0.25)  # type: ignore[union-attr]  # there is a readout


def _frozen(net: bptt.Network) -> None:
    net.cell.weight_hh.requires_grad_(False)


def _hooked(net: bptt.Network) -> None:
    net.readout.register_forward_hook(lambda module, given, output: 0.5 * output)  # type: ignore[union-attr]  # there is a readout


def _other(net: bptt.Network) -> None:
    net.readout = nn.Sequential(net.readout, nn.Tanh())


@pytest.mark.parametrize("change", [_moved, _turned, _scaled, _shifted, _frozen, _hooked, _other])
@pytest.mark.parametrize("method", [bptt.SlidingWindow(4), bptt.Truncated(6, 5)], ids=repr)
def test_whatever_changes_between_two_steps_is_seen(change: Any, method: Any) -> None:
    x, y = data(40)
    nets = network(), network()
    nets[1].backend = "eager"
    found = []
    for net in nets:
        learner = bptt.Online(net, deepcopy(method), "mse", lambda p: torch.optim.SGD(p, 0.05))
        fed(learner, range(22), x, y)
        change(net)
        found.append(torch.stack(fed(learner, range(22, 40), x, y)))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)
    assert_alike(*nets)


def test_a_loaded_optimizer_is_seen() -> None:
    x, y = data(60)
    nets = network(), network()
    nets[1].backend = "eager"
    for net in nets:
        optimizer = torch.optim.Adam(net.parameters(), 0.01)
        learner = bptt.Online(net, bptt.Truncated(4, 2), "mse", optimizer)
        fed(learner, range(20), x, y)
        saved = deepcopy(optimizer.state_dict())
        fed(learner, range(20, 40), x, y)
        optimizer.load_state_dict(saved)
        fed(learner, range(40, 60), x, y)
    assert_alike(*nets)


def _zero(gradient: torch.Tensor) -> None:
    gradient.zero_()


HOOKS: dict[str, Any] = {
    "of a parameter": lambda net, _: net.readout.weight.register_hook(lambda g: g * 0),
    "after a gradient": lambda net, _: net.readout.weight.register_post_accumulate_grad_hook(
        lambda p: _zero(p.grad)
    ),
    "before a step": lambda net, optimizer: optimizer.register_step_pre_hook(
        lambda *_: _zero(net.readout.weight.grad)
    ),
    "of all optimizers": lambda net, _: register_optimizer_step_pre_hook(
        lambda *_: _zero(net.readout.weight.grad)
    ),
    "a step of one's own": lambda _, optimizer: setattr(optimizer, "step", lambda *_: None),
    "a schedule": lambda _, optimizer: torch.optim.lr_scheduler.ConstantLR(optimizer, 0.5),
}


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_after_the_first_steps_is_called(name: str) -> None:
    x, y = data(40)
    nets = network(), network()
    nets[1].backend = "eager"
    for net in nets:
        optimizer = torch.optim.SGD(net.parameters(), 0.05)
        learner = bptt.Online(net, bptt.SlidingWindow(4), "mse", optimizer)
        fed(learner, range(20), x, y)
        handle = HOOKS[name](net, optimizer)
        fed(learner, range(20, 40), x, y)
        if hasattr(handle, "remove"):
            handle.remove()
    assert_alike(*nets)


@pytest.mark.parametrize("change", ["rate", "tensor", "frozen", "state"])
def test_a_changed_optimizer_is_seen(change: str) -> None:
    x, y = data(60)
    nets = network(), network()
    nets[1].backend = "eager"
    for net in nets:
        rate = torch.tensor(0.02, dtype=torch.float64) if change == "tensor" else 0.02
        optimizer = torch.optim.SGD(net.parameters(), rate, momentum=0.5)
        learner = bptt.Online(net, bptt.Truncated(4, 1), "mse", optimizer)
        group = optimizer.param_groups[0]
        for t in range(60):
            learner.step(x[t], y[t])
            if change == "rate":
                group["lr"] = 0.02 if t < 20 else 0.02 / (1 + t)
            elif change == "tensor":
                group["lr"].mul_(0.97)
            elif t == 30 and change == "state":
                state = optimizer.state[group["params"][0]]
                state["momentum_buffer"] = state["momentum_buffer"] * -2.0
            elif t == 30:
                group["params"][0].requires_grad_(False)
    assert_alike(*nets)


@pytest.mark.parametrize("when", [0, 12])
def test_gradients_that_are_there_already_are_part_of_the_update(when: int) -> None:
    x, y = data(40)
    nets = network(), network()
    nets[1].backend = "eager"
    reasons = []
    for net in nets:
        learner = bptt.Online(net, bptt.SlidingWindow(4), "mse", sgd)
        fed(learner, range(when), x, y)
        net.readout.weight.square().sum().backward()
        fed(learner, range(when, 40), x, y)
        assert net.readout.weight.grad is None
        reasons.append(learner.reason)
    assert reasons[0] is None  # and the core goes on
    assert_alike(*nets)
