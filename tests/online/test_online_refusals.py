"""Steps that cannot be, and losses that are not finite, are refused and change nothing."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from tests.online.test_fit import data, network, sgd
from torch import nn

import bptt

from .steps import fed

pytest.importorskip("bptt._core")


@pytest.mark.parametrize("number", [3, 10**8, -1])
def test_a_class_that_there_is_not(number: int) -> None:
    """Nothing is read or written where there is none: PyTorch's own loss says so."""
    torch.manual_seed(0)
    net = bptt.Network(bptt.cells.Elman(1, 4), nn.Linear(4, 3))
    learner = bptt.Online(net, bptt.Truncated(3, 1), "cross_entropy")
    for t in range(12):
        learner.step(torch.randn(1), torch.tensor(t % 3))
    assert learner.reason is None
    with pytest.raises(bptt.ShapeError, match="classes, 0 to 2"):
        learner.step(torch.randn(1), torch.tensor(number))


def test_steps_unlike_those_before_are_refused_in_full_flight() -> None:
    x, y = data(40)
    learner = bptt.Online(network(), bptt.SlidingWindow(2), "mse", sgd)
    fed(learner, range(10), x, y)
    steps, updates = learner.steps, learner.updates
    with pytest.raises(bptt.ShapeError, match="so far"):
        learner.step(x[10][:1], y[10])
    with pytest.raises(bptt.DataError, match="NaN"):
        learner.step(x[10] * float("nan"), y[10])
    with pytest.raises(bptt.DataError, match="NaN"):
        learner.step(x[10], y[10] / 0)
    with pytest.raises(bptt.ShapeError):
        learner.step(x[10], x[10])
    assert (learner.steps, learner.updates) == (steps, updates)
    before = deepcopy(learner.network.state_dict())
    with pytest.raises(bptt.NonFiniteError, match="withheld"):
        learner.step(x[10], y[10] * 0 + 1e200)
    for name, value in learner.network.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(bptt.OptionError, match="needs whole sequences"):
        bptt.Online(network(), bptt.Full())  # type: ignore[arg-type]  # refused
    with pytest.raises(bptt.OptionError, match="at most the depth"):
        bptt.Online(network(), bptt.Truncated(2, 3))
    learner = bptt.Online(network(), bptt.SlidingWindow(2), "mse", sgd)
    learner.step([0.0, 1.0], 0.5)
    with pytest.raises(bptt.ShapeError, match="so far"):
        learner.step([0.0], 0.5)
    with pytest.raises(bptt.DataError, match="NaN"):
        learner.step([0.0, float("nan")], 0.5)
    with pytest.raises(bptt.OptionError, match="horizon"):
        bptt.Online(network(), bptt.Truncated(2), "mse", sgd).load_state_dict(learner.state_dict())


def test_a_loss_that_is_not_finite_is_withheld() -> None:
    net = network()
    learner = bptt.Online(net, bptt.SlidingWindow(2), "mse", sgd)
    for t in range(6):
        learner.step([0.1 * t, 1.0], 0.5)
    before = deepcopy(net.state_dict())
    with pytest.raises(bptt.NonFiniteError, match="withheld"):
        learner.step([0.1, 0.1], 1e200)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
