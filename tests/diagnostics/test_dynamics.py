"""Dynamics, against eigenvalues, determinants and autograd."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bptt
from bptt.diagnostics._dynamics import Dynamics, measure_dynamics
from bptt.diagnostics._jacobian import jacobian
from bptt.diagnostics._lyapunov import stretches
from bptt.diagnostics._trajectory import Trajectory, portions, record
from bptt.network import Network
from bptt.state import leaves, map_state

from .helpers import Linear, data, every_cell, ragged


def path_of(cell: nn.Module, steps: int, features: int) -> Trajectory:
    network = Network(cell)
    dtype = next(cell.parameters()).dtype
    inputs = torch.randn(steps, features, dtype=dtype)
    stream = bptt.Stream(inputs, torch.zeros(steps, 1))
    return record(network, portions(network, stream, steps))


@pytest.mark.parametrize("make", every_cell())
def test_jacobians_are_those_of_autograd(make: Any) -> None:
    cell = make().double()
    path = path_of(cell, 12, 3)
    found = jacobian(cell, path, torch.arange(12))
    for t in (0, 5, 11):
        state = map_state(lambda leaf, at=t: leaf[at : at + 1], path.entering)
        rows = torch.autograd.functional.jacobian(
            lambda *parts, at=t, like=state: tuple(
                leaves(cell(path.inputs[at : at + 1], bptt.state.rebuild(like, list(parts))))
            ),
            tuple(leaves(state)),
        )
        flat = [
            torch.cat([b.reshape(a.numel(), -1) for b in row], dim=1)
            for row, a in zip(rows, leaves(state), strict=True)
        ]
        torch.testing.assert_close(found[t], torch.cat(flat))


class _Squared(torch.autograd.Function):
    """Has a backward alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * gradient


class OnlyBackward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden_size = 3
        self.weight = nn.Parameter(torch.randn(3, 3).double() / 4)

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        return torch.tanh(_Squared.apply(state @ self.weight) + input)


def test_a_cell_without_forward_mode_is_followed_by_reverse_mode() -> None:
    cell = OnlyBackward()
    path = path_of(cell, 6, 3)
    found = jacobian(cell, path, torch.arange(6))
    state, new = path.entering, path.entering[1:]
    slope = (1 - new**2)[:, :, None] * (2 * (state[:-1] @ cell.weight))[:, :, None]
    torch.testing.assert_close(found[:-1], slope * cell.weight.t())


def test_the_exponents_of_a_linear_cell_are_those_of_its_eigenvalues() -> None:
    eigenvalues = torch.tensor([1.05, 0.8, -0.5, 0.2, 0.05], dtype=torch.float64)
    basis = torch.randn(5, 5, dtype=torch.float64)
    matrix = basis @ torch.diag(eigenvalues) @ torch.linalg.inv(basis)
    cell = Linear(matrix)
    dynamics = measure_dynamics(cell, path_of(cell, 400, 5), exponents=None, samples=20)
    np.testing.assert_allclose(dynamics.exponents, eigenvalues.abs().log().numpy(), atol=1e-9)
    np.testing.assert_allclose(dynamics.radius, 1.05, rtol=1e-9)
    assert dynamics.error < 1e-9
    assert "chaotic, differences double every 14 steps" in dynamics.verdict()
    leading = measure_dynamics(cell, path_of(cell, 400, 5), exponents=2, samples=20)
    np.testing.assert_allclose(leading.exponents, dynamics.exponents[:2], atol=1e-9)
    assert leading.log_determinant is None


def test_a_turning_linear_cell_has_the_modulus_of_its_eigenvalues() -> None:
    angle, length = 0.7, 0.9
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    cell = Linear(length * turn.double())
    dynamics = measure_dynamics(cell, path_of(cell, 100, 2), exponents=None, samples=5)
    np.testing.assert_allclose(dynamics.exponents, [math.log(length)] * 2, atol=1e-12)


@pytest.mark.parametrize("make", every_cell())
def test_the_spectrum_sums_to_the_mean_log_determinant(make: Any) -> None:
    cell = make().double()
    path = path_of(cell, 60, 3)
    dynamics = measure_dynamics(cell, path, exponents=None, samples=5)
    counted = torch.arange(6, 6 + dynamics.steps)  # after a tenth
    dets = torch.linalg.slogdet(jacobian(cell, path, counted))[1]
    assert dynamics.exponents.sum() == pytest.approx(float(dets.mean()), rel=1e-8)
    assert dynamics.log_determinant == pytest.approx(float(dets.mean()), rel=1e-8)


def test_following_few_directions_of_a_wide_state_agrees_with_whole_jacobians(monkeypatch) -> None:
    cell = bptt.cells.GRU(2, 8).double()
    path = path_of(cell, 200, 2)
    runs = torch.arange(200)[:, None]
    whole = stretches(cell, path, runs, 3, 20).logs.mean(dim=(0, 1))
    monkeypatch.setattr("bptt.diagnostics._lyapunov.WHOLE", 4)
    along = stretches(cell, path, runs, 3, 20).logs.mean(dim=(0, 1))
    torch.testing.assert_close(along, whole)


def test_sequences_side_by_side_are_averaged() -> None:
    matrix = torch.diag(torch.tensor([0.9, 0.3], dtype=torch.float64))
    network = Network(Linear(matrix))
    series = torch.randn(300, 2, dtype=torch.float64)
    stream = bptt.Stream(series, series, lanes=3)
    path = record(network, portions(network, stream, 300))
    dynamics = measure_dynamics(network.cell, path, exponents=None, samples=5)
    assert dynamics.steps == 270
    np.testing.assert_allclose(dynamics.exponents, [math.log(0.9), math.log(0.3)], atol=1e-9)


def test_what_is_forgotten_in_one_step_is_at_minus_infinity() -> None:
    shift = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.5]], dtype=torch.float64)
    cell = Linear(shift)
    dynamics = measure_dynamics(cell, path_of(cell, 100, 3), exponents=None, samples=5)
    assert dynamics.exponents[0] == pytest.approx(math.log(0.5))
    assert np.isneginf(dynamics.exponents[1:]).any()
    assert "forgotten in one step" in dynamics.verdict()


def test_dimension_and_entropy_rate_by_their_definitions() -> None:
    def of(*exponents: float) -> Dynamics:
        empty = np.array([0.5])
        found = np.array(exponents)
        return Dynamics(found, 0.0, len(found), 10, None, empty, empty, ())

    assert of(0.3, 0.0, -0.6).dimension == pytest.approx(2.5)
    assert of(-0.1, -0.2).dimension == 0.0
    assert of(0.3, 0.2).dimension == 2.0
    assert of(0.3, 0.2, -0.1).entropy_rate == pytest.approx(0.5)


def test_saturation_counts_the_ends_of_every_gate_by_name() -> None:
    cell = bptt.cells.LSTM(2, 4)
    with torch.no_grad():
        for weight in cell.parameters():
            weight.zero_()
        cell.bias_ih[4:8] = 10.0  # keep: all open
        cell.bias_ih[8:10] = -10.0  # two candidates of four at the lower end
    network = Network(cell, nn.Linear(4, 1))
    stream = bptt.Stream(torch.randn(50, 2), torch.zeros(50, 1))
    dynamics = bptt.diagnose(network, stream, parts=("dynamics",)).dynamics
    assert dynamics is not None
    found = {s.name: s for s in dynamics.squashed}
    assert set(found) == {"enter", "keep", "leave", "memory", "tanh"}
    assert (found["keep"].low, found["keep"].high, found["keep"].stuck) == (0.0, 1.0, 1.0)
    assert (found["enter"].low, found["enter"].high) == (0.0, 0.0)
    assert found["memory"].low == 0.5
    assert found["memory"].stuck == 0.5


def test_saturation_sees_pytorchs_own_cells_and_rectifiers() -> None:
    stream = bptt.Stream(torch.randn(50, 2), torch.zeros(50, 1))
    for cell, kinds in (
        (nn.GRUCell(2, 3), ["sigmoid", "sigmoid", "tanh"]),
        (bptt.cells.Elman(2, 3, nonlinearity="relu"), ["relu"]),
        (Linear(torch.eye(2) / 2), []),
    ):
        network = Network(cell, nn.Linear(cell.hidden_size, 1))
        dynamics = bptt.diagnose(network, stream, parts=("dynamics",)).dynamics
        assert dynamics is not None
        assert sorted(s.kind for s in dynamics.squashed) == kinds
        assert ("nothing saturates" in dynamics.verdict()) == (not kinds)


def test_a_random_network_is_chaotic_above_a_gain_of_one() -> None:
    generator = torch.Generator().manual_seed(0)
    exponents = []
    for gain in (0.8, 2.0):
        cell = bptt.cells.Elman(1, 60, bias=False).double()
        drawn = torch.randn(60, 60, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            cell.weight_hh.copy_(gain * drawn / math.sqrt(60))
            cell.weight_ih.copy_(torch.randn(60, 1, generator=generator, dtype=torch.float64))
        kick = torch.zeros(600, 1, dtype=torch.float64)
        kick[0] = 1.0
        network = Network(cell, nn.Linear(60, 1).double())
        diagnosis = bptt.diagnose(network, bptt.Stream(kick, kick), parts=("dynamics",))
        assert diagnosis.dynamics is not None
        exponents.append(diagnosis.dynamics.exponents[0])
        assert ("chaotic" in str(diagnosis)) == (gain > 1)
    assert exponents[0] < -0.05 < 0.05 < exponents[1]


def test_short_sequences_are_refused_for_the_dynamics() -> None:
    network = Network(bptt.cells.GRU(3, 4), nn.Linear(4, 2)).double()
    stream = bptt.Stream(ragged(3), ragged(2), batch=2)
    with pytest.raises(bptt.DataError, match=r"at least 20\. Give longer"):
        bptt.diagnose(network, stream)
    inputs, targets = data(30)
    long = bptt.Stream(inputs[:, 0], targets[:, 0])
    with pytest.raises(bptt.OptionError, match="exponents=9"):
        bptt.diagnose(network, long, exponents=9)
