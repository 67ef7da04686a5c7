"""A closure evaluates its window again, with the weights of the day, for any optimizer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bptt

from .contract import METHODS, every_method, kinds, stream_for
from .helpers import F64, Network, assert_same, copied, gradients, network, only, series, weights


@every_method
@kinds
def test_a_closure_evaluates_its_window_again(name: str, kind: str) -> None:
    net = network(kind, learn_initial_state=kind == "LSTM")
    for update in METHODS[name]().updates(net, "mse", stream_for(name)):
        expected = gradients(net)
        for _ in range(2):
            assert float(update.closure()) == pytest.approx(update.loss, rel=1e-14)
            assert_same(gradients(net), expected, 1e-14)
        with torch.no_grad():  # so that the next window has a context of other weights
            for p, gradient in zip(net.parameters(), expected.values(), strict=True):
                p -= 0.05 * gradient
        net.zero_grad()


@every_method
def test_a_closure_takes_the_weights_of_the_day_and_the_context_of_its_window(name: str) -> None:
    """Its gradient is the derivative of its loss, and moving the weights there and back again
    changes nothing."""
    net = network("GRU")
    updates = METHODS[name]().updates(net, "mse", stream_for(name))
    for _ in range(1 if name in ("full", "segments") else 3):
        update = next(updates)
        net.zero_grad()
    before = float(update.closure())
    with torch.no_grad():
        net.readout.bias += 0.5
    moved = float(update.closure())
    slope = float(net.readout.bias.grad)
    assert moved != pytest.approx(before, rel=1e-3)
    with torch.no_grad():
        net.readout.bias -= 0.5
    assert before == pytest.approx(float(update.closure()), rel=1e-13)
    # the loss is quadratic in the readout's bias, with curvature 2
    assert moved - before == pytest.approx(0.5 * slope - 0.25, rel=1e-9)


@every_method
def test_a_closure_works_without_a_gradient_mode_around_it(name: str) -> None:
    net = network()
    update = next(METHODS[name]().updates(net, "mse", stream_for(name)))
    expected = gradients(net)
    with torch.no_grad():
        update.closure()
    assert_same(gradients(net), expected, 1e-14)


@pytest.mark.parametrize("name", ["full", "segments"])
def test_lbfgs_takes_the_steps_that_it_takes_on_a_hand_written_closure(name: str) -> None:
    net, stream = network(), series(8)
    usual, batch = copied(net), only(stream)
    options: dict[str, Any] = {"lr": 0.5, "max_iter": 6, "line_search_fn": "strong_wolfe"}
    by_hand = torch.optim.LBFGS(usual.parameters(), **options)
    optimizer = torch.optim.LBFGS(net.parameters(), **options)

    def closure() -> Tensor:
        by_hand.zero_grad()
        loss = nn.functional.mse_loss(usual(batch.inputs)[0], batch.targets)
        loss.backward()
        return loss

    losses = []
    for _ in range(3):
        for update in METHODS[name]().updates(net, "mse", stream):
            losses.append(update.loss)
            optimizer.step(update.closure)
            optimizer.zero_grad()
        by_hand.step(closure)
        assert_same(weights(net), weights(usual), 1e-8)
    assert losses[0] > losses[1] > losses[2]


@every_method
def test_lbfgs_lowers_the_loss_of_every_methods_window(name: str) -> None:
    net = network()
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=5, line_search_fn="strong_wolfe")
    for update in METHODS[name]().updates(net, "mse", stream_for(name)):
        if update.count > 1 and "mean" not in name:
            assert float(optimizer.step(update.closure)) == pytest.approx(update.loss, rel=1e-12)
            assert float(update.closure()) < update.loss
            optimizer = torch.optim.LBFGS(
                net.parameters(), max_iter=5, line_search_fn="strong_wolfe"
            )
        optimizer.zero_grad()


class Dropping(nn.Module):
    """Dropout on the input; remembers how often it drew."""

    hidden_size = 3

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.RNNCell(2, 3, dtype=F64)
        self.drawn: list[Tensor] = []

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        self.drawn.append(nn.functional.dropout(torch.ones(3, dtype=F64), 0.5))
        return self.cell(input, state * self.drawn[-1])


def test_a_replayed_window_draws_anew() -> None:
    net = Network(Dropping(), nn.Linear(3, 1, dtype=F64))
    stream = series(12)
    (update,) = bptt.Full().updates(net, "mse", stream)
    update.closure()
    draws = torch.stack(net.cell.drawn)
    assert not torch.equal(draws[:12], draws[12:])
