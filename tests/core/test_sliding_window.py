"""`SlidingWindow` is the pseudocode, to the letter: the weights agree after every update."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import bptt

from .helpers import data, descend, network
from .pseudocode import INSTANCE, back_propagation_through_time

SIZES = [(1, 3, 1), (2, 4, 3), (3, 2, 2)]


def arrays(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: p.detach().numpy().copy() for name, p in module.named_parameters()}


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-12, atol=2e-13, err_msg=name)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("combine", ["sum", "mean"])
@pytest.mark.parametrize("k", [1, 2, 3, 7])
def test_every_update_equals_the_pseudocode(k: int, combine: str, sizes: tuple) -> None:
    inputs, hidden, outputs = sizes
    n, rate, epochs = 24, 0.05, 2
    a, y = data(n, inputs), data(n, outputs, seed=2)
    net = network("Elman", inputs, hidden, outputs)
    expected = list(
        back_propagation_through_time(
            a.numpy(), y.numpy(), k, arrays(net.cell), arrays(net.readout), rate, epochs, combine
        )
    )
    method = bptt.SlidingWindow(k, combine=combine)
    stream = bptt.Stream(a, y, horizon=1)
    found = 0
    for _ in range(epochs):
        for step in descend(method, net, stream, rate):
            f_weights, g_weights, cost = expected[found]
            assert_equal(arrays(net.cell), f_weights)
            assert_equal(arrays(net.readout), g_weights)
            assert step.update.loss == pytest.approx(cost, rel=1e-11)
            assert step.update.count == 1
            found += 1
    assert found == len(expected) == epochs * (n - k)
    assert set(arrays(net.cell)) == set(INSTANCE)


@pytest.mark.parametrize(("n", "k"), [(2, 1), (5, 4), (12, 3)])
def test_there_are_n_minus_k_updates(n: int, k: int) -> None:
    stream = bptt.Stream(data(n, 2), data(n, 1), horizon=1)
    updates = list(bptt.SlidingWindow(k).updates(network(), "mse", stream))
    assert [(u.start, u.stop) for u in updates] == [(t, t + k) for t in range(n - k)]


@pytest.mark.parametrize("combine", ["sum", "mean"])
def test_it_is_truncated_with_stride_1_last_and_recomputed(combine: str) -> None:
    stream = bptt.Stream(data(15, 2), data(15, 1), horizon=1)
    named = list(descend(bptt.SlidingWindow(4, combine=combine), network("GRU"), stream))
    method = bptt.Truncated(4, stride=1, loss="last", context="recomputed", combine=combine)
    spelt = list(descend(method, network("GRU"), stream))
    assert len(named) == len(spelt) == 11
    for one, other in zip(named, spelt, strict=True):
        torch.testing.assert_close(one.weights, other.weights, rtol=0, atol=0)


def test_the_state_after_the_pass_has_read_every_step_with_the_weights_of_its_time() -> None:
    net, method = network(), bptt.SlidingWindow(3)
    stream = bptt.Stream(data(10, 2), data(10, 1), horizon=1)
    for update in method.updates(net, "mse", stream):  # weights never change
        assert update.state.shape == (1, 3)
        net.zero_grad()
    _, last = net.unfold(data(10, 2)[:, None])
    torch.testing.assert_close(method.state, last.detach(), rtol=1e-13, atol=1e-13)
