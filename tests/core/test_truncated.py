"""BPTT(h; h′) against a brute force that follows its definition, after every update."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn

import bptt

from .helpers import (
    CELLS,
    F64,
    Network,
    assert_same,
    copied,
    data,
    descend,
    gradient_of,
    gradients,
    network,
    only,
    ragged,
    series,
    weights,
)
from .reference import Windows, detached, stored, truncated

RATE = 0.05


def streams() -> dict[str, bptt.Stream]:
    """Lanes that never reset, ragged lanes with resets and masks, one series cut into lanes."""
    return {
        "lanes": series(11),
        "ragged": ragged([5, 3, 6, 2], lanes=2),
        "horizon": bptt.Stream(data(19, 2), data(19, 1), lanes=2, horizon=2, burn_in=1),
    }


def method_of(how: Windows, history: str = "replay") -> bptt.Truncated:
    return bptt.Truncated(
        how.depth,
        how.stride,
        how.loss,
        how.context,
        history,
        how.combine,  # type: ignore[arg-type]  # a word of two
    )


def assert_follows(net: bptt.Network, stream: bptt.Stream, how: Windows, **options: Any) -> None:
    expected = list(truncated(net, only(stream), how, RATE, **options))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = list(descend(method_of(how), net, stream, RATE, **options))
    assert len(found) == len(expected) > 0
    for step, record in zip(found, expected, strict=True):
        assert step.update.count == record.count
        assert step.update.loss == pytest.approx(record.loss, rel=1e-11)
        assert_same(step.weights, record.weights)


WINDOWS = [(1, 1), (3, 1), (4, 2), (5, 2), (3, 3), (7, 4), (2, 3), (1, 4), (30, 5)]


@pytest.mark.parametrize(("depth", "stride"), WINDOWS)
@pytest.mark.parametrize("context", ["carried", "recomputed"])
@pytest.mark.parametrize("loss", ["new", "last", "all"])
@pytest.mark.parametrize("name", ["lanes", "ragged", "horizon"])
def test_every_update_equals_the_brute_force(
    depth: int, stride: int, context: str, loss: str, name: str
) -> None:
    for combine in ("sum", "mean"):
        how = Windows(depth, stride, loss, context, combine)
        assert_follows(network(), streams()[name], how)


@pytest.mark.parametrize("kind", ["LSTM", "Stack", "Nested", "OwnStart", "GRUCell", "LSTMCell"])
@pytest.mark.parametrize("context", ["carried", "recomputed"])
@pytest.mark.parametrize("combine", ["sum", "mean"])
def test_every_cell_and_kind_of_state(kind: str, context: str, combine: str) -> None:
    assert_follows(network(kind), streams()["ragged"], Windows(4, 2, "new", context, combine))


@pytest.mark.parametrize("context", ["carried", "recomputed"])
@pytest.mark.parametrize("combine", ["sum", "mean"])
@pytest.mark.parametrize("kind", ["Elman", "LSTM"])
def test_a_learned_initial_state(kind: str, context: str, combine: str) -> None:
    net = network(kind, learn_initial_state=True)
    with torch.no_grad():
        for p in net.learned_initial_state:
            p += 0.3
    assert_follows(net, streams()["ragged"], Windows(3, 2, "all", context, combine))


@pytest.mark.parametrize("context", ["carried", "recomputed"])
def test_a_given_state_starts_the_pass(context: str) -> None:
    state = data(2, 3, seed=9)
    assert_follows(network(), streams()["lanes"], Windows(5, 2, "new", context), state=state)


class TiedToItsCell(nn.Module):
    """A readout that predicts with a parameter of the cell."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs @ self.weight


@pytest.mark.parametrize("combine", ["sum", "mean"])
@pytest.mark.parametrize("context", ["carried", "recomputed"])
def test_of_a_tied_parameter_only_the_cells_share_is_divided(combine: str, context: str) -> None:
    cell = CELLS["Elman"](2, 3)
    net = Network(cell, TiedToItsCell(cell.weight_hh), learn_initial_state=True)
    stream = series(9, outputs=3)
    assert_follows(net, stream, Windows(4, 2, "new", context, combine))


@pytest.mark.parametrize("kind", ["Elman", "GRU", "LSTM", "Stack"])
@pytest.mark.parametrize("loss", ["new", "last"])
@pytest.mark.parametrize(("depth", "stride"), [(1, 1), (4, 1), (4, 3), (5, 2), (3, 3), (20, 4)])
def test_stored_history_equals_explicit_jacobians(
    kind: str, loss: str, depth: int, stride: int
) -> None:
    stream = ragged([6, 4, 4], lanes=1)  # resets and masks
    for combine in ("sum", "mean"):
        how = Windows(depth, stride, loss, "carried", combine)
        net = network(kind)
        expected = list(stored(net, only(stream), how, RATE))
        found = list(descend(method_of(how, "stored"), net, stream, RATE))
        assert len(found) == len(expected) > 0
        for step, record in zip(found, expected, strict=True):
            assert step.update.loss == pytest.approx(record.loss, rel=1e-11)
            assert_same(step.weights, record.weights)


@pytest.mark.parametrize("kind", ["LSTM", "Nested", "OwnStart"])
@pytest.mark.parametrize("loss", ["new", "last"])
@pytest.mark.parametrize(("depth", "stride"), [(1, 1), (4, 1), (5, 2), (3, 3), (2, 4)])
@pytest.mark.filterwarnings("ignore:depth=")
def test_with_fixed_weights_all_contexts_and_histories_agree(
    kind: str, loss: str, depth: int, stride: int
) -> None:
    net = network(kind, learn_initial_state=kind == "LSTM")
    found = []
    for context, history in (
        ("carried", "replay"),
        ("recomputed", "replay"),
        ("carried", "stored"),
    ):
        method = bptt.Truncated(depth, stride, loss, context, history)
        total, updates = gradient_of(method, net, streams()["ragged"])
        found.append((total, [(u.loss, u.count, u.start, u.stop) for u in updates], method.state))
    for other in found[1:]:
        assert_same(found[0], other)


@pytest.mark.parametrize("kind", ["Elman", "Stack", "OwnStart"])
@pytest.mark.parametrize("name", ["lanes", "ragged", "horizon"])
@pytest.mark.parametrize("history", ["replay", "stored"])
def test_as_deep_and_wide_as_the_data_it_is_full(kind: str, name: str, history: str) -> None:
    stream, net = streams()[name], network(kind, learn_initial_state=kind == "Elman")
    length = only(stream).length
    expected, (full,) = gradient_of(bptt.Full(), net, stream)
    for depth in (length, length + 5):
        method = bptt.Truncated(depth, length, history=history)
        found, (update,) = gradient_of(method, net, stream)
        assert_same(found, expected)
        assert (update.count, update.start, update.stop) == (full.count, full.start, full.stop)
        assert update.loss == pytest.approx(full.loss, rel=1e-14)


@pytest.mark.parametrize("kind", ["Elman", "LSTM"])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_depth_equal_to_stride_is_the_usual_detach_loop(kind: str, k: int) -> None:
    net, steps = network(kind), 11
    inputs, targets = data(steps, 2, 2), data(steps, 2, 1, seed=2)
    usual = copied(net)
    state = usual.initial_state(2)
    for step, low in zip(
        descend(bptt.Truncated(k), net, bptt.Stream(inputs, targets), RATE),
        range(0, steps, k),
        strict=True,
    ):
        state = detached(state)
        predictions = []
        for t in range(low, min(low + k, steps)):
            state = usual.cell(inputs[t], state)
            hidden = state[0] if isinstance(state, tuple) else state
            predictions.append(usual.readout(hidden))
        loss = nn.functional.mse_loss(torch.stack(predictions), targets[low : low + k])
        optimizer = torch.optim.SGD(usual.parameters(), RATE)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert step.update.loss == pytest.approx(float(loss.detach()), rel=1e-12)
        assert_same(step.weights, weights(usual))
        assert_same(step.update.state, detached(state))


def test_a_depth_below_the_stride_says_how_many_losses_it_skips() -> None:
    stream = ragged([11], lanes=1)  # the steps 2, 6 and 10 are masked
    with pytest.warns(UserWarning, match=r"depth=2 is below stride=5.*losses of 5 steps") as found:
        updates = list(bptt.Truncated(2, 5).updates(network(), "mse", stream))
    assert len(found) == 1
    assert [(u.start, u.stop, u.count) for u in updates] == [(0, 2, 2), (5, 7, 1)]


@pytest.mark.parametrize(
    ("context", "history"), [("carried", "replay"), ("recomputed", "replay"), ("carried", "stored")]
)
def test_a_window_without_counted_steps_gives_no_update_and_the_state_goes_on(
    context: str, history: str
) -> None:
    inputs, targets = data(9, 1, 2), data(9, 1, 1)
    mask = torch.ones(9, 1, dtype=torch.bool)
    mask[3:6] = False
    net = network()
    method = bptt.Truncated(3, context=context, history=history)
    updates = []
    for update in method.updates(net, "mse", bptt.Stream(inputs, targets, mask=mask)):
        updates.append((update.start, update.stop, update.count))
        net.zero_grad()
    assert updates == [(0, 3, 3), (6, 9, 3)]
    assert_same(method.state, net.unfold(inputs)[1].detach())


class Indexed(nn.Module):
    """Every step adds a parameter of its own: the gradient shows which steps an error reached."""

    hidden_size = 2

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.drive = nn.Parameter(0.1 * data(steps, 2, seed=3))
        self.mix = nn.Parameter(data(2, 2, seed=4), requires_grad=False)

    def forward(self, input: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        return torch.tanh(state @ self.mix + self.drive[input])


REACHES = [
    ("last", 1, "carried", "replay"),
    ("last", 1, "recomputed", "replay"),
    ("last", 1, "carried", "stored"),
    ("new", 1, "carried", "replay"),
    ("all", 1, "carried", "replay"),
]


@pytest.mark.parametrize("depth", [1, 2, 5, 8])
@pytest.mark.parametrize(("loss", "stride", "context", "history"), REACHES)
def test_the_gradient_is_exactly_zero_from_lag_depth_on_and_nowhere_before(
    depth: int, loss: str, stride: int, context: str, history: str
) -> None:
    steps = 17
    net = Network(Indexed(steps))
    stream = bptt.Stream(torch.arange(steps), data(steps, 2), dtype=F64)
    method = bptt.Truncated(depth, stride, loss, context, history)
    for update in method.updates(net, "mse", stream):
        found = net.cell.drive.grad.abs().amin(dim=1)
        largest = net.cell.drive.grad.abs().amax(dim=1)
        first = update.stop - depth
        assert torch.all(largest[: max(first, 0)] == 0.0)
        assert torch.all(found[max(first, 0) : update.stop] > 0.0)
        assert torch.all(largest[update.stop :] == 0.0)
        net.zero_grad()


@pytest.mark.parametrize("method", [bptt.Truncated(4, 2), bptt.Truncated(6, 3, "all")])
def test_no_loss_of_a_wider_window_reaches_beyond_depth(method: bptt.Truncated) -> None:
    steps = 14
    net = Network(Indexed(steps))
    stream = bptt.Stream(torch.arange(steps), data(steps, 2), dtype=F64)
    for update in method.updates(net, "mse", stream):
        reached = net.cell.drive.grad.abs().amin(dim=1).nonzero()[:, 0].tolist()
        assert reached == list(range(update.start, update.stop))
        net.zero_grad()


class Balance(nn.Module):
    """Influence balancing (C. Tallec and Y. Ollivier, Unbiasing truncated backpropagation through
    time, 2017): 10 units push the first one up, 13 pull it down with a longer delay."""

    hidden_size = 23

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(0.5, dtype=F64))
        half = 0.5 * torch.eye(23, dtype=F64)
        self.register_buffer("mix", half + torch.diag(torch.full((22,), 0.5, dtype=F64), 1))
        self.register_buffer("sign", torch.tensor([1.0] * 10 + [-1.0] * 13, dtype=F64))

    def forward(self, input: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        return state @ self.mix.T + self.theta * self.sign


@pytest.mark.parametrize(
    ("depth", "expected"),
    [(1, 1.0), (10, 10.0), (20, 16.476), (40, 0.566), (41, -0.219), (100, -6.0)],
)
@pytest.mark.parametrize("history", ["replay", "stored"])
def test_influence_balancing_changes_sign_with_depth(
    depth: int, expected: float, history: str
) -> None:
    net = Network(Balance())
    nothing = torch.zeros(103, 1, dtype=F64)
    stream = bptt.Stream(nothing, nothing)
    method = bptt.Truncated(depth, stride=1, loss="last", history=history)
    found = []
    for _ in method.updates(net, lambda p, _: p[..., 0], stream):
        found.append(float(net.cell.theta.grad))
        net.zero_grad()
    assert len(found) == 104 - depth
    assert found == pytest.approx([expected] * len(found), abs=6e-4)


def test_the_gradient_of_one_shared_cell_is_the_sum_over_its_copies() -> None:
    net, stream = network(), series(4, lanes=1)
    list(bptt.Full().updates(net, "mse", stream))
    summed = gradients(net)
    net.zero_grad()
    list(bptt.Truncated(4, combine="mean").updates(net, "mse", stream))
    for name, gradient in gradients(net).items():
        share = 4.0 if name.startswith("cell.") else 1.0
        assert_same(summed[name], share * gradient)
