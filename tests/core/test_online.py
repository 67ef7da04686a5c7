"""Forward methods against `Full`: RTRL and focused backpropagation exactly, UORO on average."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

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
    ragged,
    series,
    weights,
)

STREAMS = {
    "ragged": lambda: ragged([5, 3, 6, 2], lanes=2),
    "batches": lambda: ragged([5, 3, 6], batch=2),
    "horizon": lambda: bptt.Stream(data(13, 2), data(13, 1), lanes=2, horizon=2, burn_in=1),
}


def self_recurrent(**options: Any) -> bptt.Network:
    torch.manual_seed(3)
    return Network(bptt.cells.SelfRecurrent(2, 3, dtype=F64), nn.Linear(3, 1, dtype=F64), **options)


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


@pytest.mark.parametrize("method", [bptt.RTRL(2), bptt.UORO(2), bptt.Focused(2)])
def test_a_given_state_starts_the_pass_and_gets_no_gradient(method: Any) -> None:
    net, stream, state = self_recurrent(learn_initial_state=True), series(7), data(2, 3, seed=9)
    expected, _ = gradient_of(bptt.Full(), net, stream, state=state)
    found, _ = gradient_of(method, net, stream, state=state)
    if not isinstance(method, bptt.UORO):
        assert_same(found, expected)
    assert not bool(found["learned_initial_state.0"].any())
    full = bptt.Full()
    list(full.updates(net, "mse", stream, state))
    assert_same(method.state, full.state)


class Choosy(nn.Module):
    """Control flow on data, which no batched transform can follow."""

    hidden_size = 3

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.RNNCell(2, 3, dtype=F64)

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        rows = [
            torch.sin(3.0 * row) if float(row.detach().sum()) > 0.0 else row
            for row in self.step(input, state)
        ]
        return torch.stack(rows)


class Tied(nn.Module):
    """A readout that uses the cell's weight."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, outputs: Tensor) -> Tensor:
        return (outputs @ self.cell.weight_hh).mean(dim=2, keepdim=True)


def variants() -> dict[str, bptt.Network]:
    torch.manual_seed(5)
    cell = CELLS["GRU"](2, 3)
    tied = CELLS["Elman"](2, 3)
    frozen = network("LSTM")
    frozen.cell.weight_ih.requires_grad_(False)
    readout_alone = network("GRU")
    for p in readout_alone.cell.parameters():
        p.requires_grad_(False)
    start_alone = network("GRU", learn_initial_state=True)
    for p in start_alone.cell.parameters():
        p.requires_grad_(False)
    normed = nn.utils.parametrizations.weight_norm(nn.RNNCell(2, 3, dtype=F64), "weight_hh")
    layers = CELLS["Elman"](2, 2)
    return {
        "control flow": Network(Choosy(), nn.Linear(3, 1, dtype=F64)),
        "no readout": Network(CELLS["Elman"](2, 1)),
        "tied": Network(tied, Tied(tied)),
        "twice": Network(bptt.Stack(layers, layers), nn.Linear(2, 1, dtype=F64)),
        "frozen weight": frozen,
        "readout alone": readout_alone,
        "start alone": start_alone,
        "weight norm": Network(normed, nn.Linear(3, 1, dtype=F64)),
        "dropout in eval": Network(
            bptt.Stack(cell, nn.RNNCell(3, 3, dtype=F64)), nn.Linear(3, 1, dtype=F64)
        ).eval(),
    }


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


@pytest.mark.parametrize("stride", [1, 4, None])
@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("learned", [False, True])
def test_focused_backpropagation_is_full_for_self_recurrent_units(
    stride: int | None, name: str, learned: bool
) -> None:
    net, stream = self_recurrent(learn_initial_state=learned), STREAMS[name]()
    expected, _ = gradient_of(bptt.Full(), net, stream)
    found, _ = gradient_of(bptt.Focused(stride), net, stream)
    assert_same(found, expected)


class Independent(nn.Module):
    """Units with their own recurrent weight inside the nonlinearity (Li et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden_size = 3
        self.x, self.u = nn.Linear(2, 3, dtype=F64), nn.Parameter(torch.rand(3, dtype=F64))

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        return torch.tanh(self.x(input) + self.u * state)


def test_focused_backpropagation_takes_any_cell_of_self_recurrent_units() -> None:
    net, stream = Network(Independent(), nn.Linear(3, 1, dtype=F64)), STREAMS["ragged"]()
    expected, _ = gradient_of(bptt.Full(), net, stream)
    assert_same(gradient_of(bptt.Focused(2), net, stream)[0], expected)


@pytest.mark.parametrize(
    ("kind", "stride"),
    [
        ("Elman", 2),
        ("OwnStart", None),
        *(pytest.param(kind, 2, marks=pytest.mark.slow) for kind in ("LSTM", "Nested", "OwnStart")),
        *(pytest.param(kind, None, marks=pytest.mark.slow) for kind in ("Elman", "LSTM", "Nested")),
    ],
)
def test_uoro_is_full_on_average(kind: str, stride: int | None) -> None:
    """Lanes that are all alike are as many draws; passes with other seeds give the spread of their
    mean."""
    net = network(kind, learn_initial_state=kind != "OwnStart")
    values, targets = data(6, 1, 2), data(6, 1, 1, seed=2)
    expected, _ = gradient_of(bptt.Full(), net, bptt.Stream(values, targets))
    exact = torch.cat([g.flatten() for g in expected.values()]) / 6
    lanes = 32 if kind == "OwnStart" else 256
    alike = bptt.Stream(values.expand(6, lanes, 2), targets.expand(6, lanes, 1))
    draws = []
    for seed in range(48):
        found, _ = gradient_of(bptt.UORO(stride, seed), net, alike)
        draws.append(torch.cat([g.flatten() for g in found.values()]) / (6 * lanes))
    mean, deviation = torch.stack(draws).mean(0), torch.stack(draws).std(0) / 48**0.5
    random = deviation > 1e-12
    assert_same(mean[~random], exact[~random], 1e-9)  # the readout's gradient is not random
    scores = ((mean - exact) / deviation)[random]
    assert float(scores.abs().max()) < 3.5  # 0.1% of Student's t with 47 degrees of freedom
    assert float(deviation.norm()) < 0.05 * float(exact.norm())  # so that a bias would be seen


def test_uoros_draws_depend_on_seed_epoch_and_place_alone() -> None:
    net = network("GRU")

    def of(seed: int, stream: bptt.Stream) -> dict[str, Tensor]:
        return gradient_of(bptt.UORO(2, seed), net, stream)[0]

    stream = series(6)
    first, second = of(1, stream), of(1, stream)
    assert_same(of(1, series(6)), first, 0.0)
    for other in (second, of(2, series(6))):
        assert not torch.allclose(other["cell.weight_hh"], first["cell.weight_hh"], rtol=1e-3)


METHODS = {
    "rtrl": lambda: bptt.RTRL(2),
    "uoro": lambda: bptt.UORO(2, seed=4),
    "focused": lambda: bptt.Focused(2),
}
every_method = pytest.mark.parametrize("name", METHODS)


@every_method
def test_closures_evaluate_their_stretch_again_and_grad_is_added_to(name: str) -> None:
    net = self_recurrent()
    for update in METHODS[name]().updates(net, "mse", STREAMS["ragged"]()):
        expected = gradients(net)
        for p in net.parameters():
            p.grad = torch.full_like(p, 2.5)
        with torch.no_grad():
            assert float(update.closure()) == pytest.approx(update.loss, rel=1e-13)
        assert_same(gradients(net), expected)
        with torch.no_grad():
            for p, gradient in zip(net.parameters(), expected.values(), strict=True):
                p -= 0.05 * gradient
        net.zero_grad()


@every_method
def test_online_passes_learn_and_leave_the_state_after_the_last_step(name: str) -> None:
    net, method = self_recurrent(), METHODS[name]()
    stream = bptt.Stream(data(40, 1, 2), data(40, 1, 2)[:, :, :1].roll(1, 0), burn_in=1)
    losses = [
        sum(s.update.loss * s.update.count for s in descend(method, net, stream, rate=0.02))
        for _ in range(15)
    ]
    assert min(losses) < 0.7 * losses[0]
    assert method.state is not None
    assert not method.state.requires_grad


@every_method
@pytest.mark.parametrize("after", [1, 4])
def test_a_pass_is_taken_up_where_it_was_interrupted(name: str, after: int) -> None:
    whole = self_recurrent()
    expected = [s.weights for s in descend(METHODS[name](), whole, STREAMS["ragged"]())]
    net, stream, method = self_recurrent(), STREAMS["ragged"](), METHODS[name]()
    steps = descend(method, net, stream)
    found = [next(steps).weights for _ in range(after)]
    saved, where = method.state_dict(), stream.state_dict()
    tensors = saved.pop("tensors")
    saved = {**json.loads(json.dumps(saved)), "tensors": tensors}
    again, other, resumed = copied(net), METHODS[name](), STREAMS["ragged"]()
    steps.close()
    other.load_state_dict(saved)
    resumed.load_state_dict(where)
    found += [s.weights for s in descend(other, again, resumed)]
    assert_same(found, expected, 0.0)


@every_method
def test_a_network_of_which_only_the_readout_learns(name: str) -> None:
    net, stream = self_recurrent(), STREAMS["ragged"]()
    for p in net.cell.parameters():
        p.requires_grad_(False)
    expected, _ = gradient_of(bptt.Full(), net, stream)
    assert_same(gradient_of(METHODS[name](), net, stream)[0], expected)


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


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("GRU", r"weight_ih of GRU has the shape \[9, 2\].*SelfRecurrent.*RTRL\(\)"),
        ("Elman", r"the units of Elman see one another.*SelfRecurrent.*RTRL\(\)"),
    ],
)
def test_focused_backpropagation_is_refused_where_units_see_one_another(
    kind: str, message: str
) -> None:
    with pytest.raises(bptt.CellError, match=message):
        bptt.Focused().updates(network(kind), "mse", series(5))


class Shifted(nn.Module):
    """Diagonal, but each parameter moves its neighbour."""

    hidden_size = 3

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.rand(3, dtype=F64))

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        return 0.5 * state + input[:, :1] * self.bias.roll(1)


def test_focused_backpropagation_is_refused_where_a_parameter_moves_another_unit() -> None:
    net = Network(Shifted(), nn.Linear(3, 1, dtype=F64))
    with pytest.raises(bptt.CellError, match="one of Shifted moves several"):
        bptt.Focused().updates(net, "mse", series(5))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bptt.RTRL(0), "stride must be at least 1, not 0"),
        (lambda: bptt.UORO(2.5), "stride must be a whole number"),
        (lambda: bptt.Focused(-1), "stride must be at least 1"),
        (lambda: bptt.RTRL(memory=0), "memory must be at least 1"),
        (lambda: bptt.UORO(seed=-1), "seed must be a whole number of at least 0, not -1"),
    ],
)
def test_options_out_of_range_are_refused(make: Any, message: str) -> None:
    with pytest.raises(bptt.OptionError, match=message):
        make()
