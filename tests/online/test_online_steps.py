"""`Online`: the numbers of the method over the stream, step by step."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from tests.online.test_fit import assert_alike, data, network, sgd
from torch import nn

import bptt
from bptt.training._online_core import CoreSide

from .steps import METHODS, fed

pytest.importorskip("bptt._core")


@pytest.mark.parametrize("backend", ["auto", "eager"])
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_updates_are_those_of_the_method_over_the_stream(method: Any, backend: str) -> None:
    method = deepcopy(method)
    by_steps, by_stream = network(), network()
    by_steps.backend, by_stream.backend = backend, "eager"
    x, y = data(41)
    learner = bptt.Online(by_steps, method, "mse", sgd)
    optimizer = sgd(by_stream.parameters())
    source = bptt.Stream(x, y, horizon=learner.horizon)
    losses = []
    for update in deepcopy(method).updates(by_stream, "mse", source):
        if update.stop - update.start < method.depth or update.stop > 40:
            break  # a stream's last window is cut short, or has no target
        optimizer.step()
        optimizer.zero_grad()
        losses.append(update.loss)
    seen = []
    for t in range(41):
        before = learner.updates
        prediction = learner.step(x[t], y[t])
        assert prediction.shape == (1,)
        if learner.updates > before:
            seen.append(learner.loss)
        if len(seen) == len(losses):
            break
    assert seen == pytest.approx(losses, rel=1e-10)
    assert_alike(by_steps, by_stream, 1e-10)
    stored = getattr(method, "history", "") == "stored"
    assert (learner.reason is None) == (backend == "auto" and not stored)


def test_the_prediction_is_that_of_the_window() -> None:
    x, y = data(30)
    net, still = network(), network()
    learner = bptt.Online(net, bptt.SlidingWindow(4), "mse", lambda p: torch.optim.SGD(p, 0.0))
    found = torch.stack(fed(learner, range(30), x, y))
    expected, _ = still(x[:, None])
    torch.testing.assert_close(found, expected[:, 0].detach(), rtol=1e-12, atol=1e-12)


def test_nothing_to_compare_is_no_update() -> None:
    x, y = data(30)
    learner = bptt.Online(network(), bptt.Truncated(4, 2), "mse", sgd)
    for t in range(10):
        learner.step(x[t])
    assert learner.updates == 0
    for t in range(10, 20):
        learner.step(x[t], y[t])
    assert learner.updates > 0


def test_lanes_and_plain_numbers() -> None:
    net = bptt.Network(bptt.cells.Elman(1, 4), nn.Linear(4, 1))
    learner = bptt.Online(net, bptt.SlidingWindow(3), lanes=2)
    for t in range(12):
        assert learner.step([[0.1 * t], [0.2]], [[0.3], [0.1 * t]]).shape == (2, 1)
    assert learner.updates == 12 - 3
    alone = bptt.Online(deepcopy(net), bptt.SlidingWindow(3))
    assert alone.step(0.5, 0.5).shape == (1,)


def test_the_buffer_does_not_grow() -> None:
    net = bptt.Network(bptt.cells.Elman(1, 3), nn.Linear(3, 1))
    learner = bptt.Online(net, bptt.SlidingWindow(3), "mse", lambda p: torch.optim.SGD(p, 0.01))
    wave = torch.arange(3000).mul(0.1).sin()
    for value in wave:
        learner.step(value, value)
    assert learner.updates == 3000 - 3
    assert learner._batch.inputs is not None
    assert len(learner._batch.inputs) == learner._batch.capacity < 600
    assert learner.loss < 0.05


@pytest.mark.parametrize(
    "method", [bptt.Truncated(5, 2, loss="new"), bptt.Truncated(4, 1)], ids=repr
)
@pytest.mark.parametrize("horizon", [0, 1, 3])
@pytest.mark.parametrize("lanes", [1, 2])
def test_steps_at_once_are_those_taken_in_parts(
    method: Any, horizon: int, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the prediction unfolded serves the update that follows, unless weights were changed."""
    x, y = (torch.stack([a, a.flip(0)][:lanes], 1) for a in data(50))
    learners = []
    for whole in (True, False):
        net = network()
        learner = bptt.Online(net, deepcopy(method), "huber", sgd, lanes=lanes, horizon=horizon)
        if not whole:
            monkeypatch.setattr(CoreSide, "feed", lambda *_: None)
        found = []
        for t in range(50):
            if t % 13 == 8:
                with torch.no_grad():
                    net.cell.weight_hh.mul_(0.9)
            target = None if t % 7 == 3 else y[t]
            found.append(learner.step(x[t], target))
            found.append(torch.tensor([learner.loss, learner.gradient_norm, learner.updates]))
        learners.append(found)
    assert any(learners[0][-1][:2] > 0)
    for one, other in zip(*learners, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_a_huge_gradient_is_left_to_pytorch() -> None:
    x, y = data(40)
    nets = network(), network()
    nets[1].backend = "eager"
    for net in nets:
        learner = bptt.Online(net, bptt.SlidingWindow(3), "mse", lambda p: torch.optim.SGD(p, 1e-9))
        fed(learner, range(20), x, y)
        learner.step(x[20], y[20] + 1e17)
        fed(learner, range(21, 40), x, y)
    assert_alike(*nets, 1e-12)


def test_predictions_are_apart_from_each_other() -> None:
    x, y = data(100)
    learner = bptt.Online(network(), bptt.SlidingWindow(3), "mse", sgd)
    kept = fed(learner, range(100), x, y)
    values = [prediction.clone() for prediction in kept]
    weight = torch.ones(1, dtype=torch.float64, requires_grad=True)
    product = (weight * kept[50]).sum()
    for i in range(0, 100, 3):
        if i != 50:
            kept[i].add_(1.0)
    for i, (prediction, value) in enumerate(zip(kept, values, strict=True)):
        assert torch.equal(prediction, value + (i % 3 == 0 and i != 50))
    product.backward()  # what was done to the others does not count
    assert len({prediction.data_ptr() for prediction in kept}) == 100


def test_predictions_of_inference_mode_serve_outside() -> None:
    x, y = data(30)
    learner = bptt.Online(network(), bptt.SlidingWindow(3), "mse", sgd)
    fed(learner, range(15), x, y)
    with torch.inference_mode():
        fed(learner, range(15, 20), x, y)
    prediction = learner.step(x[20], y[20])
    (prediction * torch.ones(1, dtype=torch.float64, requires_grad=True)).sum().backward()
