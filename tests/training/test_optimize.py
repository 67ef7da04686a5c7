"""General-purpose optimisers in `fit`: they reach what SciPy reaches, stop in time, and refuse."""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize as scipy_optimize
from torch import nn

import bptt
from bptt.optimize import CMAES, LeastSquares, SciPy

F64 = torch.float64


def stream(**options: Any) -> bptt.Stream:
    steps = torch.arange(60, dtype=F64)
    return bptt.Stream(torch.sin(0.4 * steps) + 0.3 * torch.sin(1.1 * steps), horizon=1, **options)


def network(hidden: int = 3) -> bptt.Network:
    torch.manual_seed(1)
    return bptt.Network(bptt.cells.Elman(1, hidden, dtype=F64), nn.Linear(hidden, 1, dtype=F64))


def train(optimizer: Any, epochs: int = 4, **options: Any) -> tuple[float, bptt.History]:
    net, data = network(), options.pop("stream", stream())
    history = bptt.fit(net, data, optimizer=optimizer, epochs=epochs, progress=False, **options)
    return bptt.evaluate(net, data, options.get("loss", "mse")).loss, history


OPTIMIZERS = [
    SciPy(),
    SciPy("BFGS"),
    SciPy("CG"),
    SciPy("trust-ncg", 5),
    SciPy("trust-krylov", 5),
    SciPy("trust-constr", 5),
    LeastSquares("lm", 25),
    LeastSquares("trf", 8),
    CMAES(generations=8),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_each_lowers_the_loss_in_every_epoch(optimizer: Any) -> None:
    last, history = train(optimizer)
    losses = [*history.losses, last]
    assert all(late <= early for early, late in itertools.pairwise(losses))
    assert last < 0.3 * losses[0]
    assert history.stop_reason == "4 epochs done"


def test_lbfgsb_takes_scipys_own_steps() -> None:
    net, data = network(), stream()
    parameters = list(net.parameters())

    def function(x: Any) -> Any:
        nn.utils.vector_to_parameters(torch.from_numpy(x), parameters)
        net.zero_grad()
        (batch,) = data.in_order()
        loss = nn.functional.mse_loss(net(batch.inputs)[0][:-1], batch.targets[:-1])
        loss.backward()
        return float(loss.detach()), nn.utils.parameters_to_vector(
            [p.grad for p in parameters]
        ).numpy()

    start = nn.utils.parameters_to_vector(parameters).detach().numpy().copy()
    expected = scipy_optimize.minimize(
        function, start, jac=True, method="L-BFGS-B", options={"maxiter": 15}
    )
    found = network()
    bptt.fit(found, data, optimizer=SciPy(iterations=15), epochs=1, progress=False)
    weights = nn.utils.parameters_to_vector(found.parameters()).detach().numpy()
    np.testing.assert_allclose(weights, expected.x, rtol=1e-6, atol=1e-8)


def test_least_squares_solves_a_linear_problem_at_once() -> None:
    net, data = network(), stream()
    for p in net.cell.parameters():
        p.requires_grad_(False)
    bptt.fit(net, data, optimizer=LeastSquares(), epochs=1, progress=False)
    (batch,) = data.in_order()
    outputs, _ = net.unfold(batch.inputs)
    design = torch.cat([outputs[:-1, 0], torch.ones(59, 1, dtype=F64)], 1).detach()
    expected = torch.linalg.lstsq(design, batch.targets[:-1, 0]).solution
    found = torch.cat([net.readout.weight[0], net.readout.bias]).detach()
    torch.testing.assert_close(found, expected[:, 0], rtol=1e-6, atol=1e-8)


def test_cma_es_keeps_its_distribution_from_update_to_update() -> None:
    once, _ = train(CMAES(generations=30), epochs=1)
    bit_by_bit, _ = train(CMAES(generations=10), epochs=3)
    assert once == bit_by_bit
    assert train(CMAES(generations=30, seed=1), epochs=1)[0] != once


@pytest.mark.parametrize("optimizer", [SciPy(iterations=10**6), LeastSquares("trf", 10**6)])
def test_a_time_limit_ends_an_update_and_keeps_the_best_weights(optimizer: Any) -> None:
    """The clock is the loss's own: every evaluation takes a second of it."""
    passed = 0.0

    class Clock(bptt.TimeLimit):
        def after_update(self, progress: bptt.Progress) -> str | None:
            nonlocal passed
            passed += 1.0
            progress.elapsed = passed
            return super().after_update(progress)

    last, history = train(optimizer, epochs=50, stop=Clock(8.0))
    assert history.stop_reason == "8 seconds are over"
    assert len(history) <= 3
    assert passed <= 10.0
    assert last < history.losses[0]


def test_the_real_clock_is_asked_too() -> None:
    began = time.perf_counter()
    _, history = train(CMAES(generations=10**9), stop=bptt.TimeLimit(0.2))
    assert history.stop_reason == "0.2 seconds are over"
    assert time.perf_counter() - began < 20.0


def test_scipy_takes_windows_and_any_loss() -> None:
    method = bptt.Truncated(20)
    last, history = train(SciPy(iterations=3), method=method, loss="huber", epochs=5)
    assert last < 0.5 * history.losses[0]


def test_a_loop_of_ones_own_steps_with_the_update() -> None:
    net, data = network(), stream()
    solver = SciPy(iterations=5)(net.parameters())
    losses = []
    for _ in range(3):
        for update in bptt.Full().updates(net, "mse", data):
            losses.append(update.loss)
            assert solver.step(update) < update.loss
            solver.zero_grad()
    assert losses == sorted(losses, reverse=True)
    with pytest.raises(bptt.OptionError, match=r"optimizer.step\(update\)"):
        solver.step(update.closure)


def classes() -> bptt.Stream:
    return bptt.Stream(torch.rand(20, 1, dtype=F64), torch.randint(0, 1, (20,)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": LeastSquares(), "loss": "mae"}, r"loss='mse' alone.*L-BFGS-B"),
        (
            {"optimizer": LeastSquares(), "loss": "cross_entropy", "stream": classes()},
            r"loss='mse' alone.*L-BFGS-B",
        ),
        ({"optimizer": LeastSquares(), "method": bptt.Truncated(9)}, r"goes with method=Full\(\)"),
        ({"optimizer": CMAES(), "method": bptt.Full(7)}, r"goes with method=Full\(\)"),
        ({"optimizer": SciPy(), "clip": 1.0}, "clip does not go with SciPy"),
        ({"optimizer": CMAES(), "checkpoint": "never"}, "CMAES remembers more than can be saved"),
        (
            {
                "optimizer": LeastSquares(),
                "stream": bptt.Stream(torch.rand(6, dtype=F64), horizon=1),
            },
            r"as many residuals as weights, and there are 5 for 22.*LeastSquares\('trf'\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(bptt.OptionError, match=message):
        train(**options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SciPy("lbfgs"), "method='lbfgs' is unknown. Known: 'L-BFGS-B'"),
        (lambda: SciPy(iterations=0), "iterations must be at least 1"),
        (lambda: LeastSquares("gauss"), "method='gauss' is unknown"),
        (lambda: LeastSquares(evaluations=0), "evaluations must be at least 1"),
        (lambda: CMAES(sigma=-1.0), "sigma must be a finite number above 0"),
        (lambda: CMAES(population=1), "population must be at least 2"),
        (lambda: CMAES(generations=0), "generations must be at least 1"),
    ],
)
def test_options_out_of_range_are_refused(make: Any, message: str) -> None:
    with pytest.raises(bptt.OptionError, match=message):
        make()
