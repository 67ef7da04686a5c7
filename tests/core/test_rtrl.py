"""RTRL is `Full` at fixed weights, tells its cost, and is refused where it cannot be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import bptt

from .forward import STREAMS, variants
from .helpers import CELLS, F64, Network, assert_same, gradient_of, network, series, weights


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize(
    ("stride", "name"), [(1, "ragged"), (3, "ragged"), (None, "batches"), (3, "horizon")]
)
def test_rtrl_is_full_at_fixed_weights(kind: str, stride: int | None, name: str) -> None:
    net, stream = network(kind, learn_initial_state=True), STREAMS[name]()
    expected, _ = gradient_of(bptt.Full(), net, stream)
    found, updates = gradient_of(bptt.RTRL(stride), net, stream)
    assert_same(found, expected)
    if stride == 1:
        assert all(u.stop == u.start + 1 for u in updates)
    assert sum(u.count for u in updates) == stream.counted


def test_rtrl_is_full_for_a_cell_that_starts_where_its_own_parameters_say() -> None:
    net, stream = network("OwnStart"), STREAMS["ragged"]()
    expected, _ = gradient_of(bptt.Full(), net, stream)
    found, _ = gradient_of(bptt.RTRL(2), net, stream)
    assert bool(expected["cell.step.bias_hh"].any())
    assert_same(found, expected)


@pytest.mark.parametrize("name", variants())
def test_rtrl_is_full_for_every_kind_of_parameter(name: str) -> None:
    net, stream = variants()[name], STREAMS["ragged"]()
    expected, _ = gradient_of(bptt.Full(), net, stream)
    before = [id(p) for p in net.parameters()]
    found, _ = gradient_of(bptt.RTRL(4), net, stream)
    assert_same(found, expected)
    assert [id(p) for p in net.parameters()] == before
    for p in net.parameters():
        assert p.requires_grad or p.grad is None


def test_rtrl_is_full_for_indices_and_classes() -> None:
    torch.manual_seed(2)
    embedding = nn.Embedding(5, 2, dtype=F64)
    cell = bptt.cells.Embedded(embedding, bptt.cells.GRU(2, 3, dtype=F64))
    net = Network(cell, nn.Linear(3, 5, dtype=F64))
    symbols = torch.randint(0, 5, (17,))
    stream = bptt.Stream(symbols, horizon=1, lanes=2)
    expected, _ = gradient_of(bptt.Full(), net, stream, "cross_entropy")
    found, _ = gradient_of(bptt.RTRL(3), net, stream, "cross_entropy")
    assert_same(found, expected)


class Dropping(nn.Module):
    hidden_size = 3

    def __init__(self) -> None:
        super().__init__()
        self.step, self.drop = nn.RNNCell(2, 3, dtype=F64), nn.Dropout(0.5)

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        return self.drop(self.step(input, state))


class Mixing(nn.Module):
    hidden_size = 3

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.RNNCell(2, 3, dtype=F64)

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        new = self.step(input, state)
        return new - new.mean(dim=0)


class Counting(nn.Module):
    hidden_size = 3

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.RNNCell(2, 3, dtype=F64)
        self.register_buffer("seen", torch.zeros((), dtype=F64))

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        self.seen += 1
        return self.step(input, state)


class Captured(nn.Module):
    hidden_size = 3

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.RNNCell(2, 3, dtype=F64)
        self.foreign = [torch.ones(3, dtype=F64, requires_grad=True)]

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        return self.step(input, state) * self.foreign[0]


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.step = nn.RNNCell(2, 3, dtype=F64)

    def initial_state(self, batch: int) -> tuple[Tensor, Tensor]:
        return torch.zeros(batch, 3, dtype=F64), torch.zeros(batch, dtype=torch.int64)

    def forward(self, input: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return self.step(input, state[0]), state[1] + 1


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (Dropping, r"Dropping draws random numbers.*RTRL needs a deterministic cell.*Full\(\)"),
        (Mixing, r"Mixing mixes lanes.*Full\(\)"),
        (Counting, r"Counting changes its buffer 'seen'.*Full\(\)"),
        (Captured, r"Captured uses a tensor that needs a gradient.*nn\.Parameter"),
        (Mixed, r"one floating dtype, and Mixed carries torch.float64, torch.int64"),
    ],
)
def test_cells_that_cannot_be_differentiated_step_by_step_are_refused(
    cell: type[nn.Module], message: str
) -> None:
    torch.manual_seed(0)
    net = Network(cell(), nn.Linear(3, 1, dtype=F64))
    before, draws = weights(net), torch.get_rng_state()
    with pytest.raises(bptt.CellError, match=message):
        next(bptt.RTRL().updates(net, "mse", series(5)))
    assert all(p.grad is None for p in net.parameters())
    assert_same(weights(net), before, 0.0)
    assert torch.equal(torch.get_rng_state(), draws)


def test_dropout_in_evaluation_mode_is_no_obstacle() -> None:
    net, stream = Network(Dropping(), nn.Linear(3, 1, dtype=F64)).eval(), series(5)
    expected, _ = gradient_of(bptt.Full(), net, stream)
    assert_same(gradient_of(bptt.RTRL(2), net, stream)[0], expected)


def test_a_clipped_state_gradient_is_refused() -> None:
    net = network(clip_state_gradient=1.0)
    with pytest.raises(bptt.CellError, match=r"sends none back.*Full\(\)"):
        bptt.RTRL().updates(net, "mse", series(5))


def test_rtrl_tells_its_cost_and_is_refused_where_memory_does_not_suffice() -> None:
    net, stream = network("GRU"), series(5)
    needed = 4 * 2 * 3 * 63 * 8  # copies · lanes · state · parameters · bytes
    list(bptt.RTRL(memory=needed).updates(net, "mse", stream))
    with pytest.raises(
        bptt.OptionError,
        match=r"need 12.1 KB and 1.1e\+03 multiplications a step, for 2 lane\(s\) of 3 state "
        r"numbers and 63 parameters \(it grows with hidden³.*12.1 KB may be used.*UORO\(\)",
    ):
        bptt.RTRL(memory=needed - 1).updates(net, "mse", stream)
    huge = bptt.Network(bptt.cells.GRU(2, 4096), nn.Linear(4096, 1))
    with pytest.raises(bptt.OptionError, match=r"would need 13\.2 TB"):
        bptt.RTRL().updates(huge, "mse", bptt.Stream(torch.zeros(5, 4, 2), torch.zeros(5, 4, 1)))
