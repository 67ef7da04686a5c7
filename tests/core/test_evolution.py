"""Evolution strategies: right on average where the loss is quadratic, and the same every time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bptt

from .helpers import (
    F64,
    Network,
    assert_same,
    copied,
    data,
    descend,
    gradient_of,
    gradients,
    network,
    ragged,
    series,
    weights,
)


class Integrator(nn.Module):
    """Linear in its parameters, whatever the input: a squared error is quadratic in them."""

    hidden_size = 3

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Parameter(data(2, 3, seed=11))
        self.bias = nn.Parameter(data(3, seed=12))

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        return 0.7 * state.roll(1, dims=1) + input @ self.enter + self.bias


def test_the_estimate_is_the_gradient_on_average_where_the_loss_is_quadratic() -> None:
    net, stream = (
        Network(Integrator(), learn_initial_state=True),
        ragged([3, 2], outputs=3, lanes=2),
    )
    expected, _ = gradient_of(bptt.Full(), net, stream)
    exact = torch.cat([g.flatten() for g in expected.values()])
    draws = []
    for seed in range(48):
        # However wide: on a quadratic loss differences are exact.
        method = bptt.EvolutionStrategies(pairs=20, sigma=1.0, seed=seed)
        found, _ = gradient_of(method, net, stream)
        draws.append(torch.cat([g.flatten() for g in found.values()]))
    mean, deviation = torch.stack(draws).mean(0), torch.stack(draws).std(0) / 48**0.5
    assert float(((mean - exact) / deviation).abs().max()) < 3.5  # 0.1% of Student's t
    assert float(deviation.norm()) < 0.2 * float(exact.norm())


def test_one_pair_is_a_directional_derivative_to_second_order() -> None:
    net, stream = network("GRU"), series(6)
    expected, _ = gradient_of(bptt.Full(), net, stream)
    method = bptt.EvolutionStrategies(pairs=1, sigma=1e-5, seed=3)
    found, updates = gradient_of(method, net, stream)
    slope = sum(float((found[n] * expected[n]).sum()) for n in found)
    length = sum(float(g.square().sum()) for g in found.values())
    # g = (ε·∇E) ε, so that g·∇E = (ε·∇E)² and |g|² = (ε·∇E)² |ε|²
    square = length / slope
    assert 0.5 * 66 < square < 1.5 * 66  # |ε|² of as many standard normal numbers
    along = {n: g / (slope**0.5) for n, g in found.items()}  # ε but for its sign
    derivative = sum(float((along[n] * expected[n]).sum()) for n in along)
    assert derivative == pytest.approx(slope**0.5, rel=1e-9)
    (update,) = updates
    (exact,) = bptt.Full().updates(net, "mse", stream)
    assert update.loss == pytest.approx(exact.loss, rel=1e-13)


def test_weights_are_as_before_and_draws_depend_on_seed_epoch_and_batch_alone() -> None:
    net = network("LSTM", learn_initial_state=True)
    before, state = weights(net), torch.get_rng_state()
    method = bptt.EvolutionStrategies(pairs=2)
    one, _ = gradient_of(method, net, series(5))
    assert_same(weights(net), before, 0.0)
    assert torch.equal(torch.get_rng_state(), state)
    assert_same(gradient_of(method, net, series(5))[0], one, 0.0)
    other, _ = gradient_of(bptt.EvolutionStrategies(pairs=2, seed=1), net, series(5))
    assert not torch.allclose(other["cell.weight_hh"], one["cell.weight_hh"])


def test_weights_come_back_when_a_member_fails() -> None:
    net = network()

    def failing(prediction: Tensor, target: Tensor) -> Tensor:
        raise KeyboardInterrupt

    before = weights(net)
    with pytest.raises(KeyboardInterrupt):
        next(bptt.EvolutionStrategies().updates(net, failing, series(5)))
    assert_same(weights(net), before, 0.0)


def test_the_closure_the_state_and_grad_keep_the_contract() -> None:
    net, stream, method = network("GRU"), series(6), bptt.EvolutionStrategies(pairs=3)
    for p in net.parameters():
        p.grad = torch.full_like(p, 2.0)
    (update,) = method.updates(net, "mse", stream)
    added = gradients(net)
    assert float(update.closure()) == update.loss
    assert_same({n: g + 2.0 for n, g in gradients(net).items()}, added)
    full = bptt.Full()
    list(full.updates(net, "mse", stream))
    assert_same(method.state, full.state)


def test_a_pass_is_taken_up_after_the_batch_that_was_done() -> None:
    def fresh() -> tuple[bptt.Network, bptt.Stream, bptt.EvolutionStrategies]:
        return network(), ragged([5, 3, 6, 2], batch=1), bptt.EvolutionStrategies(pairs=2)

    net, stream, method = fresh()
    expected = [s.weights for s in descend(method, net, stream)]
    net, stream, method = fresh()
    steps = descend(method, net, stream)
    found = [next(steps).weights for _ in range(2)]
    saved, where, net = method.state_dict(), stream.state_dict(), copied(net)
    _, stream, method = fresh()
    method.load_state_dict(saved)
    stream.load_state_dict(where)
    found += [s.weights for s in descend(method, net, stream)]
    assert_same(found, expected, 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": 0}, "pairs must be at least 1"),
        ({"sigma": 0.0}, "sigma must be a finite number above 0"),
        ({"sigma": float("nan")}, "sigma must be a finite number above 0"),
        ({"seed": -2}, "seed must be a whole number of at least 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(bptt.OptionError, match=message):
        bptt.EvolutionStrategies(**options)


def test_a_state_of_indices_and_float64_are_no_obstacle() -> None:
    cell = bptt.cells.Embedded(nn.Embedding(4, 2, dtype=F64), bptt.cells.Elman(2, 3, dtype=F64))
    net = Network(cell, nn.Linear(3, 4, dtype=F64))
    stream = bptt.Stream(torch.tensor([0, 1, 2, 3, 0, 1, 2, 3]), horizon=1)
    method = bptt.EvolutionStrategies(pairs=8)
    losses = [
        s.update.loss for _ in range(20) for s in descend(method, net, stream, 0.5, "cross_entropy")
    ]
    assert losses[-1] < 0.8 * losses[0]
