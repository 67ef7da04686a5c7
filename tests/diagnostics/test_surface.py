"""Surface and optima, against quadratics and by definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import bptt
from bptt.diagnostics._landscape import Landscape
from bptt.diagnostics._optima import measure_optima
from bptt.diagnostics._surface import roughness
from bptt.diagnostics._trajectory import portions
from bptt.losses import step_loss
from bptt.network import Network

from .helpers import ragged, small_network


class Memoryless(nn.Module):
    """The state is the input: the loss of a linear readout is an exact quadratic."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.hidden_size = size

    def forward(self, input: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        return input + 0 * state


def quadratic(size: int) -> tuple[Landscape, torch.Tensor]:
    network = Network(Memoryless(size), nn.Linear(size, 1, bias=False))
    inputs, targets = torch.randn(80, size), torch.randn(80, 1)
    given = portions(network, bptt.Stream(inputs, targets), 80)
    wide = inputs.double()
    return Landscape.of(network, given, step_loss("mse")), 2 * wide.t() @ wide / 80


@pytest.mark.parametrize("size", [5, 60])
def test_leading_curvature_is_that_of_the_quadratic(size: int) -> None:
    landscape, hessian = quadratic(size)
    values, vectors = landscape.leading(2, seed=0)
    truth = torch.linalg.eigvalsh(hessian).flip(0)[:2]
    np.testing.assert_allclose(values, truth.numpy(), rtol=1e-3)
    for value, vector in zip(values, vectors, strict=True):
        assert float(vector.norm()) == pytest.approx(1)
        assert float((hessian @ vector - value * vector).norm()) < 0.05 * value


def test_hessian_products_are_those_of_autograd() -> None:
    network = small_network()
    stream = bptt.Stream(ragged(3), ragged(2), lanes=2)
    landscape = Landscape.of(network, portions(network, stream, 1000), step_loss("huber"))
    vector = torch.randn(len(landscape.centre), dtype=torch.float64)
    found = landscape.hessian_product(vector)
    eager = Network(network.cell, network.readout, backend="eager")
    eager.learned_initial_state = network.learned_initial_state
    again = Landscape.of(eager, portions(eager, stream, 1000), step_loss("huber"))
    parameters = again.parameters
    again._move(again.centre)
    total, count = again._total()
    gradient = torch.autograd.grad(total / count, parameters, create_graph=True)
    flat = torch.cat([g.flatten() for g in gradient])
    truth = torch.autograd.grad(flat @ vector, parameters)
    torch.testing.assert_close(found, torch.cat([g.flatten() for g in truth]), rtol=1e-5, atol=1e-8)


def test_the_loss_of_a_landscape_is_that_of_an_evaluation() -> None:
    network = small_network().float()
    stream = bptt.Stream([s.float() for s in ragged(3)], [s.float() for s in ragged(2)], batch=2)
    landscape = Landscape.of(network, portions(network, stream, 1000), step_loss("mse"))
    assert landscape.value(landscape.centre) == pytest.approx(
        bptt.evaluate(network, stream).loss, rel=1e-5
    )


def test_random_directions_have_the_norm_of_every_row() -> None:
    network = small_network()
    stream = bptt.Stream(ragged(3), ragged(2), batch=2)
    landscape = Landscape.of(network, portions(network, stream, 1000), step_loss("mse"))
    offset = 0
    direction = landscape.random(1, seed=0)[0]
    for parameter in network.parameters():
        part = direction[offset : offset + parameter.numel()].reshape(parameter.shape)
        offset += parameter.numel()
        rows, own = (p.reshape(len(p), -1) if p.dim() > 1 else p[None] for p in (part, parameter))
        torch.testing.assert_close(rows.norm(dim=1), own.norm(dim=1).detach())


def test_the_users_network_is_left_as_it_was() -> None:
    network = small_network().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    series = torch.randn(60, 3, dtype=torch.float64), torch.randn(60, 2, dtype=torch.float64)
    random = torch.get_rng_state()
    diagnosis = bptt.diagnose(network, bptt.Stream(*series), points=5, grid=3)
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    assert network.training
    assert all(p.grad is None for p in network.parameters())
    assert torch.equal(random, torch.get_rng_state())
    surface = diagnosis.surface
    assert surface is not None
    for plane in surface.planes:
        assert plane.lines.shape == (2, 5)
        assert plane.lines[:, 2] == pytest.approx(surface.loss)
        np.testing.assert_allclose(plane.loss[1], plane.lines[0][[0, 2, 4]])
        np.testing.assert_allclose(plane.loss[:, 1], plane.lines[1][[0, 2, 4]])


def test_roughness_by_definition() -> None:
    x = np.linspace(-1, 1, 201)
    assert roughness(x**2) == 0
    assert roughness(np.exp(5 * x)) == 0
    assert roughness(np.abs(x) ** 0.3) == 0
    assert roughness(np.full(9, 2.0)) == 0
    # One further valley, half as deep as the range.
    assert roughness(np.array([3.0, 1.0, 4.0, 2.0, 5.0])) == pytest.approx(0.5)
    assert roughness(np.array([5.0, 2.0, 4.0, 1.0, np.inf])) == pytest.approx(0.5)
    assert roughness(7 + 30 * np.array([3.0, 1.0, 4.0, 2.0, 5.0])) == pytest.approx(0.5)
    assert roughness(np.cos(40 * x) + x**2) > roughness(np.cos(10 * x) + x**2) > 1


def test_optima_count_what_ends_near_the_best() -> None:
    optima = measure_optima([0.3, 0.1, 0.105, float("nan"), 0.2])
    assert (optima.near, optima.failed) == (2, 1)
    assert optima.spread == pytest.approx(2)
    assert "5 starts find a good one 19 times in 20; 1 more failed." in optima.verdict()
    assert "do not matter" in measure_optima([0.1, 0.1001]).verdict()


def test_starts_of_fit_are_taken_as_they_are() -> None:
    network = Network(bptt.cells.Elman(2, 3), nn.Linear(3, 1))
    stream = bptt.Stream(torch.randn(30, 2), torch.randn(30, 1))
    history = bptt.fit(network, stream, epochs=2, starts=3, seed=0, progress=False)
    diagnosis = bptt.diagnose(network, stream, parts=(), starts=history.starts)
    assert diagnosis.optima is not None
    assert sorted(start.loss for start in history.starts) == list(diagnosis.optima.losses)
    with pytest.raises(bptt.OptionError, match=r"starts=history\.starts"):
        bptt.diagnose(network, stream, starts=8)
    with pytest.raises(bptt.OptionError, match="at least two"):
        bptt.diagnose(network, stream, starts=[0.1])
