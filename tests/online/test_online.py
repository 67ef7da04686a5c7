"""`Online`: the numbers of the method over the stream, step by step."""

from __future__ import annotations

import gc
import io
import weakref
from copy import deepcopy
from typing import Any

import pytest
import torch
from tests.online.test_fit import assert_alike, data, network, sgd
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

import bptt
from bptt.training._online_core import CoreSide

pytest.importorskip("bptt._core")

METHODS = [
    bptt.SlidingWindow(4),
    bptt.SlidingWindow(3, combine="mean"),
    bptt.Truncated(6, 2),
    bptt.Truncated(5, 5),
    bptt.Truncated(4, 1, loss="all", context="recomputed"),
    bptt.Truncated(6, 3, history="stored"),
]


def fed(learner: bptt.Online, steps: range, x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
    return [learner.step(x[t], y[t]) for t in steps]


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


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("at", [0, 2, 17, 20])
def test_it_is_saved_and_goes_on(method: Any, at: int) -> None:
    x, y = data(40)
    whole = bptt.Online(network(), deepcopy(method), "mse", sgd)
    broken = bptt.Online(network(), deepcopy(method), "mse", sgd)
    expected = fed(whole, range(40), x, y)
    fed(broken, range(at), x, y)
    file = io.BytesIO()
    torch.save(broken.state_dict(), file)
    file.seek(0)
    again = bptt.Online(network("Elman"), deepcopy(method), "mse", sgd)
    with torch.no_grad():
        again.network.cell.weight_hh.zero_()
    again.load_state_dict(torch.load(file, weights_only=True))
    found = fed(again, range(at, 40), x, y)
    assert again.updates == whole.updates
    for one, other in zip(found, expected[at:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("at", [0, 2, 17])
def test_a_copy_goes_its_own_way(method: Any, at: int) -> None:
    x, y = data(40)
    first = bptt.Online(network(), deepcopy(method), "mse", sgd)
    fed(first, range(at), x, y)
    second = deepcopy(first)
    assert second.optimizer.param_groups[0]["params"][0] is next(second.network.parameters())
    fed(second, range(at, 30), x, -y)
    third = bptt.Online(network(), deepcopy(method), "mse", sgd)
    expected = fed(third, range(40), x, y)[at:]
    for one, other in zip(fed(first, range(at, 40), x, y), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    other = bptt.Online(network(), deepcopy(method), "mse", sgd)
    fed(other, range(at), x, y)
    fed(other, range(at, 30), x, -y)
    assert (second.steps, second.updates) == (other.steps, other.updates)
    assert second.loss == pytest.approx(other.loss, rel=1e-9, nan_ok=True)
    assert_alike(second.network, other.network)


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


def test_a_learner_is_collected_with_its_network() -> None:
    x, y = data(20)
    net = network()
    learner = bptt.Online(net, bptt.SlidingWindow(3), "mse", sgd)
    fed(learner, range(20), x, y)
    assert learner._feed is not None
    net.__dict__["learner"] = learner
    gone = weakref.ref(net)
    del net, learner
    gc.collect()
    assert gone() is None


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
