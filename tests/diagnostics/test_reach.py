"""Reach, against autograd over a plain loop and against matrix powers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bptt
from bptt.cells._stack import output_of
from bptt.diagnostics._method import method_reach
from bptt.diagnostics._reach import bias_bound, measure_reach, spread, table
from bptt.diagnostics._sweep import sweep
from bptt.diagnostics._trajectory import portions, record
from bptt.losses import step_loss
from bptt.network import Network
from bptt.state import leaves, map_state

from .helpers import Linear, data, every_cell, ragged, small_network


def literal(
    network: Network, inputs: Tensor, targets: Tensor, anchor: int, depth: int
) -> tuple[list[float], Tensor]:
    """Norms by lag and the gradient truncated to ``depth`` copies, by autograd over a loop."""
    state = network.initial_state(1, like=inputs)
    kept = []
    for t in range(anchor + 1):
        if t == anchor - depth + 1 and t > 0:
            state = bptt.state.detach(state)
        new = network.cell(inputs[t], state)
        # Each leaf by itself: one may be computed from another of the same step.
        nudges = map_state(lambda leaf: torch.zeros_like(leaf).requires_grad_(), new)
        state = map_state(torch.add, new, nudges)
        kept.append(nudges)
    output = output_of(network.cell, state)
    network.zero_grad()
    loss = (network.read(output[None]) - targets[anchor][None]).square().mean()
    loss.backward()
    norms = []
    for nudges in reversed(kept[max(0, anchor - depth + 1) :]):
        grads = [leaf.grad if leaf.grad is not None else 0 * leaf for leaf in leaves(nudges)]
        norms.append(float(torch.cat([g.flatten() for g in grads]).norm()))
    flat = [
        (torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in network.parameters()
    ]
    return norms, torch.cat(flat)


@pytest.mark.parametrize("make", every_cell())
@pytest.mark.parametrize("learned", [False, True])
def test_norms_and_truncated_gradients_are_those_of_autograd(make, learned: bool) -> None:
    cell = make()
    network = Network(cell, nn.LazyLinear(2), learned).double()
    inputs, targets = data(30)
    network(inputs)
    stream = bptt.Stream(inputs[:, 0], targets[:, 0])
    path = record(network, portions(network, stream, 1000))
    anchors = torch.tensor([3, 11, 29])
    bounds = [1, 2, 5, 8, 30]
    found = sweep(network, path, anchors, step_loss("mse"), bounds)
    assert found.bounds == bounds
    for i, bound in enumerate(bounds):
        truth = [literal(network, inputs, targets, int(a), bound) for a in anchors]
        mean = torch.stack([gradient for _, gradient in truth]).mean(0)
        torch.testing.assert_close(found.gradients[i], mean, rtol=1e-9, atol=1e-12)
    for column, (norms, _) in enumerate(truth):
        own = found.norms[: len(norms), column].tolist()
        assert own == pytest.approx(norms, rel=1e-8, abs=1e-14)
        assert found.norms[len(norms) :, column].isnan().all()


def test_resets_and_ragged_lanes_end_the_reach_where_the_sequence_began() -> None:
    network = small_network()
    stream = bptt.Stream(ragged(3), ragged(2), lanes=2)
    path = record(network, portions(network, stream, 1000))
    # The last step of each sequence, and what autograd finds for each of them alone.
    ends = torch.tensor([low + length - 1 for low, length in path.runs()])
    found = sweep(network, path, ends, step_loss("mse"), [1, 4, 50])
    total = torch.zeros(())
    for column, (low, length) in enumerate(path.runs()):
        assert int(found.norms[:, column].isfinite().sum()) == length
        inputs, targets = path.inputs[low : low + length], path.targets[low : low + length]
        norms, gradient = literal(network, inputs[:, None], targets[:, None], length - 1, 50)
        assert found.norms[:length, column].tolist() == pytest.approx(norms, rel=1e-8)
        total = total + gradient
    torch.testing.assert_close(found.gradients[-1], total / len(ends), rtol=1e-9, atol=1e-12)


def test_batches_of_whole_sequences_are_looked_at_alike() -> None:
    network = small_network()
    lanes = bptt.Stream(ragged(3), ragged(2), lanes=2)
    batches = bptt.Stream(ragged(3), ragged(2), batch=2)
    one, other = (record(network, portions(network, s, 1000)) for s in (lanes, batches))
    assert sorted(n for _, n in one.runs()) == sorted(n for _, n in other.runs())
    total = [float(sum(leaf.sum() for leaf in leaves(path.entering))) for path in (one, other)]
    assert total[0] == pytest.approx(total[1])


def test_a_stream_cut_off_is_entered_from_what_precedes_it() -> None:
    inputs, targets = data(40)
    network = Network(bptt.cells.GRU(3, 5), nn.Linear(5, 2)).double()
    whole = bptt.Stream(inputs[:, 0], targets[:, 0])
    later = whole.split(0.5)[1]
    path = record(network, portions(network, later, 1000))
    full = record(network, portions(network, whole, 1000))
    torch.testing.assert_close(path.entering, full.entering[20:])
    assert not path.fresh.any()
    assert full.fresh.nonzero().tolist() == [[0]]


def test_the_state_of_a_linear_cell_fades_by_matrix_powers() -> None:
    matrix = torch.tensor([[0.9, 0.3], [0.0, 0.5]], dtype=torch.float64)
    network = Network(Linear(matrix))
    inputs = torch.randn(60, 2, dtype=torch.float64)
    stream = bptt.Stream(inputs, torch.zeros(60, 2, dtype=torch.float64))
    path = record(network, portions(network, stream, 1000))
    found = sweep(network, path, torch.tensor([59]), step_loss("mse"), [60])
    state = network(inputs[:, None])[0][-1, 0]
    for lag in range(60):
        error = torch.linalg.matrix_power(matrix.t(), lag) @ state
        assert float(found.norms[lag, 0]) == pytest.approx(float(error.norm().detach()), rel=1e-9)


@pytest.mark.parametrize("depth", [1, 3, 10])
@pytest.mark.parametrize("history", ["replay", "stored"])
def test_the_reach_of_truncated_is_exactly_zero_from_its_depth_on(depth, history) -> None:
    torch.manual_seed(1)
    network = Network(bptt.cells.LSTM(3, 4), nn.Linear(4, 2)).double()
    inputs, targets = data(25)
    portion = portions(network, bptt.Stream(inputs[:, 0], targets[:, 0]), 100)[0]
    method = bptt.Truncated(depth, stride=1, loss="last", history=history)
    found = method_reach(network, portion, method, "mse", anchors=25)
    full = method_reach(network, portion, bptt.Full(), "mse", anchors=25)
    later = full[:, depth - 1 :]  # the first window counts none of its first steps
    cut = found[:, depth - 1 :]
    torch.testing.assert_close(cut[:depth], later[:depth], rtol=1e-10, atol=0, equal_nan=True)
    assert (cut[:depth].nan_to_num(1.0) > 0).all()
    assert (cut[depth:].nan_to_num(0.0) == 0).all()
    assert (later[depth : depth + 5].nan_to_num(1.0) > 0).all()


def test_a_diagnosis_tells_how_far_a_method_reaches() -> None:
    network = Network(bptt.cells.Elman(3, 4), nn.Linear(4, 2)).double()
    inputs, targets = data(40)
    stream = bptt.Stream(inputs[:, 0], targets[:, 0])
    method = bptt.Truncated(7, stride=7)
    reach = bptt.diagnose(network, stream, parts=("reach",), method=method).reach
    assert reach is not None
    assert reach.by_method is not None
    assert (reach.by_method[:7] > 0).all()
    assert (reach.by_method[7:] == 0).all()
    said = "Truncated(depth=7, stride=7) brings errors back to lag 6 and no further"
    assert said in reach.verdict()
    with pytest.raises(bptt.OptionError, match="RTRL leaves no gradient in its inputs"):
        bptt.diagnose(network, stream, parts=("reach",), method=bptt.RTRL())


def test_a_methods_reach_is_that_of_the_sweep() -> None:
    network = Network(bptt.cells.GRU(3, 4), nn.Linear(4, 2)).double()
    inputs, targets = data(25)
    given = portions(network, bptt.Stream(inputs[:, 0], targets[:, 0]), 100)
    by_method = method_reach(network, given[0], bptt.Full(segment=7), "mse", anchors=5)
    path = record(network, given)
    chosen = spread(path.counted(), 5)
    swept = sweep(network, path, chosen, step_loss("mse"), [25])
    assert len(by_method) == int(chosen.max()) + 1
    torch.testing.assert_close(by_method, swept.norms[: len(by_method)], equal_nan=True)


def test_the_bound_of_a_geometric_decay_is_its_closed_form() -> None:
    # One unit, s' = a s + θ: the gradient of the last state by θ is Σ aᵏ, its tail a^K/(1 − a).
    decay = 0.8
    network = Network(Linear(torch.tensor([[decay]], dtype=torch.float64), bias=True))
    network.cell.matrix.requires_grad_(False)
    inputs = torch.zeros(400, 1, dtype=torch.float64)
    stream = bptt.Stream(inputs, torch.ones(400, 1, dtype=torch.float64))
    path = record(network, portions(network, stream, 1000))
    swept = sweep(network, path, torch.tensor([399]), step_loss("mse"), table(40, None))
    bound = bias_bound(swept, tail=True)
    for k in (1, 5, 20, 40):
        # ‖g‖ is known to be at least ‖g_40‖ − E(40) = (1 − 2 a⁴⁰)/(1 − a).
        assert bound[k] == pytest.approx(decay**k / (1 - 2 * decay**40), rel=1e-6)
    reach = measure_reach(
        network,
        path,
        step_loss("mse"),
        anchors=1,
        lags=None,
        depth=7,
        tolerance=0.02,
        share=0.01,
    )
    assert reach.recommended is not None
    assert reach.recommended.depth == 24  # 0.8¹⁷ ≈ 0.0225 and 0.8¹⁸ ≈ 0.018; 16 is too few
    assert reach.recommended.error == pytest.approx(decay**24, rel=1e-6)
    assert reach.given is not None
    assert reach.given.error == pytest.approx(decay**7, rel=1e-6)
    assert reach.fallen == 21  # 0.8²⁰ = 0.0115, 0.8²¹ = 0.0092


def test_influence_balancing_needs_a_depth_above_forty() -> None:
    # Contributions of opposite sign cancel: the norms fall fast, the truncated gradient points the
    # wrong way up to depth 40 (Tallec and Ollivier 2017).
    size, count = 23, 13
    matrix = 0.5 * torch.eye(size) + 0.5 * torch.diag(torch.ones(size - 1), 1)
    sign = torch.tensor([1.0] * (size - count) + [-1.0] * count)
    network = Network(Linear(matrix.double(), drive=sign.double()), First())
    network.cell.matrix.requires_grad_(False)
    with torch.no_grad():
        network.cell.bias.fill_(0.5)
    inputs = torch.zeros(2000, 1, dtype=torch.float64)
    stream = bptt.Stream(inputs, torch.ones(2000, 1, dtype=torch.float64))
    path = record(network, portions(network, stream, 2000))
    swept = sweep(network, path, torch.tensor([1999]), step_loss("mse"), [1, 10, 20, 40, 41, 100])
    error = float(network(inputs[:, None])[0][-1, 0, 0].detach()) - 1
    slopes = [float(g) / (2 * error) for g in swept.gradients]
    truth = [1, 10, 16.476, 0.566, -0.219, -6.0]
    assert slopes == pytest.approx(truth, abs=2e-3)
    reach = bptt.diagnose(network, stream, parts=("reach",), lags=100, depth=20).reach
    assert reach is not None
    assert reach.given is not None
    assert reach.given.cosine == pytest.approx(-1)
    assert reach.recommended is None or reach.recommended.depth > 41


class First(nn.Module):
    def forward(self, outputs: Tensor) -> Tensor:
        return outputs[..., :1]


class Last(nn.Module):
    def forward(self, outputs: Tensor) -> Tensor:
        return outputs[..., -1:]


def test_exploding_gradients_are_told_and_end_the_sweep() -> None:
    network = Network(Linear(torch.tensor([[3.0]])))
    stream = bptt.Stream(torch.full((60, 1), 1e-30), torch.zeros(60, 1))
    diagnosis = bptt.diagnose(network, stream, parts=("reach",), lags=60)
    assert diagnosis.reach is not None
    assert "explode" in diagnosis.reach.verdict()


def test_a_memory_of_fixed_length_vanishes_not_by_degrees() -> None:
    delay = Network(Linear(torch.diag(torch.ones(3), -1)), Last())
    stream = bptt.Stream(torch.randn(60, 4), torch.zeros(60, 1))
    reach = bptt.diagnose(delay, stream, parts=("reach",), lags=30).reach
    assert reach is not None
    assert reach.end == "vanished"
    assert "vanish after 4 steps, not by degrees" in reach.verdict()


def test_quantiles_are_those_of_numpy() -> None:
    network = Network(bptt.cells.Elman(3, 4), nn.Linear(4, 2)).double()
    inputs, targets = data(50)
    stream = bptt.Stream(inputs[:, 0], targets[:, 0])
    reach = bptt.diagnose(network, stream, parts=("reach",)).reach
    path = record(network, portions(network, stream, 100))
    swept = sweep(network, path, path.counted(), step_loss("mse"), [50])
    assert reach is not None
    for lag in (0, 3, 20):
        row = swept.norms[lag][swept.norms[lag].isfinite()].numpy()
        np.testing.assert_allclose(reach.quantiles[lag], np.quantile(row, [0.1, 0.5, 0.9]))
        np.testing.assert_allclose(reach.mean[lag], row.mean())


def test_classes_and_indices_are_followed_back_too() -> None:
    class Embedded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden_size = 6
            self.table = nn.Embedding(5, 3)
            self.inner = bptt.cells.GRU(3, 6)

        def forward(self, input: Tensor, state: Tensor) -> Tensor:
            return self.inner(self.table(input), state)

    network = Network(Embedded(), nn.Linear(6, 5))
    symbols = torch.randint(0, 5, (80,))
    stream = bptt.Stream(symbols, horizon=1)
    diagnosis = bptt.diagnose(network, stream, loss="cross_entropy", parts=("reach", "dynamics"))
    assert diagnosis.reach is not None
    assert diagnosis.reach.depths[-1].error == 0
