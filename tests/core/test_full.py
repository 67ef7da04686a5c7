"""`Full`: its gradient against finite differences of its own loss, segments against the whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bptt
from bptt.state import leaves

from .helpers import (
    CELLS,
    F64,
    Network,
    assert_same,
    data,
    gradient_of,
    gradients,
    network,
    only,
    ragged,
    sequences,
    series,
    weights,
)


class CostOf(torch.autograd.Function):
    """One update of a gradient method as a function of the parameters: the loss that it tells,
    with the gradient that it left in ``.grad``."""

    @staticmethod
    def forward(ctx: Any, method: Any, net: Any, loss: Any, stream: Any, *values: Tensor) -> Tensor:
        with torch.no_grad():
            for p, value in zip(net.parameters(), values, strict=True):
                p.copy_(value)
        net.zero_grad()
        with torch.enable_grad():
            (update,) = method.updates(net, loss, stream)
        ctx.found = list(gradients(net).values())
        return torch.tensor(update.loss, dtype=F64)

    @staticmethod
    def backward(ctx: Any, seed: Tensor) -> tuple[Any, ...]:
        return None, None, None, None, *(seed * g for g in ctx.found)


def assert_gradient(method: Any, net: Any, loss: Any, stream: Any, fast: bool = True) -> None:
    values = [p.detach().clone().requires_grad_() for p in net.parameters()]

    def function(*flat: Tensor) -> Tensor:
        return CostOf.apply(method, net, loss, stream, *flat)

    assert torch.autograd.gradcheck(function, values, fast_mode=fast)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("segment", [None, 2])
def test_gradcheck_with_resets_masks_lengths_and_a_learned_initial_state(
    kind: str, segment: int | None
) -> None:
    net = network(kind, learn_initial_state=True)
    assert_gradient(bptt.Full(segment), net, "mse", ragged([3, 2, 4], lanes=2))


@pytest.mark.parametrize("segment", [None, 2])
def test_gradcheck_of_every_single_parameter(segment: int | None) -> None:
    net = network("Elman", learn_initial_state=True)
    assert_gradient(bptt.Full(segment), net, "mse", ragged([3, 2, 4], lanes=2), fast=False)


def cubic(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target) ** 3


def cubic_mean(prediction: Tensor, target: Tensor) -> Tensor:
    return cubic(prediction, target).mean(dim=2)


@pytest.mark.parametrize("loss", ["mse", "mae", "huber", cubic, cubic_mean])
@pytest.mark.parametrize("segment", [None, 3])
def test_gradcheck_of_every_loss(loss: Any, segment: int | None) -> None:
    net = network("GRU", outputs=2)
    assert_gradient(bptt.Full(segment), net, loss, ragged([4, 3, 5], outputs=2, lanes=2))


@pytest.mark.parametrize("segment", [None, 3])
@pytest.mark.parametrize("shares", [False, True])
def test_gradcheck_of_cross_entropy(segment: int | None, shares: bool) -> None:
    net = network("GRU", outputs=3)
    indices = [torch.tensor([0, 2, 1, 1]), torch.tensor([2, 2, 0])]
    targets = [nn.functional.one_hot(t, 3).to(F64) for t in indices] if shares else indices
    stream = bptt.Stream([data(4, 2), data(3, 2, seed=2)], targets, lanes=2)
    assert_gradient(bptt.Full(segment), net, "cross_entropy", stream)


LOSSES = {
    "mse": lambda p, t: ((p - t) ** 2).mean(),
    "mae": lambda p, t: (p - t).abs().mean(),
    "huber": lambda p, t: nn.functional.huber_loss(p, t),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_named_losses_are_means_over_features_steps_and_lanes(name: str) -> None:
    net, stream = network(outputs=3), series(6, outputs=3)
    (update,) = bptt.Full().updates(net, name, stream)
    batch = only(stream)
    expected = LOSSES[name](net(batch.inputs)[0], batch.targets)
    assert update.loss == pytest.approx(float(expected.detach()), rel=1e-12)
    assert update.count == 12


def test_cross_entropy_takes_indices_for_laned_data() -> None:
    net = network(outputs=3)
    inputs, classes = data(5, 2, 2), torch.tensor([[0, 1], [2, 2], [1, 0], [0, 0], [2, 1]])
    (update,) = bptt.Full().updates(net, "cross_entropy", bptt.Stream(inputs, classes))
    scores = net(inputs)[0].detach()
    expected = nn.functional.cross_entropy(scores.flatten(0, 1), classes.flatten())
    assert update.loss == pytest.approx(float(expected), rel=1e-12)


STREAMS = {
    "lanes": lambda: series(9),
    "ragged": lambda: ragged([5, 3, 6, 2], lanes=2),
    "batches": lambda: ragged([5, 3, 6], batch=2),
    "sparse": lambda: bptt.Stream(
        data(9, 2), data(9, 1), mask=torch.tensor([False] * 3 + [True] + [False] * 5)
    ),
}


@pytest.mark.parametrize("kind", ["Elman", "LSTM", "Stack", "Nested", "OwnStart"])
@pytest.mark.parametrize("name", STREAMS)
def test_segments_of_any_length_give_the_gradient_of_the_whole(kind: str, name: str) -> None:
    net, stream = network(kind, learn_initial_state=kind != "OwnStart"), STREAMS[name]()
    whole = bptt.Full()
    expected, updates = gradient_of(whole, net, stream)
    for segment in range(1, 12):
        method = bptt.Full(segment)
        found, others = gradient_of(method, net, stream)
        assert_same(found, expected)
        assert_same(method.state, whole.state)
        for one, other in zip(others, updates, strict=True):
            assert one.loss == pytest.approx(other.loss, rel=1e-13)
            assert (one.count, one.start, one.stop) == (other.count, other.start, other.stop)
            assert (one.batch,) == (other.batch,)
            assert_same(one.state, other.state)


@pytest.mark.parametrize("segment", [1, 4, 9, 20])
def test_segments_from_a_given_state(segment: int) -> None:
    net, stream = network("LSTM"), series(9)
    state = (data(2, 3, seed=5), data(2, 3, seed=6))
    whole, (one,) = gradient_of(bptt.Full(), net, stream, state=state)
    found, (other,) = gradient_of(bptt.Full(segment), net, stream, state=state)
    assert_same(found, whole)
    assert_same(other.state, one.state)


@pytest.mark.parametrize("segment", [None, 2])
def test_a_ragged_batch_is_each_sequence_alone(segment: int | None) -> None:
    net, lengths = network("GRU", learn_initial_state=True), [5, 2, 7]
    together = ragged(lengths, batch=3)
    found, (update,) = gradient_of(bptt.Full(segment), net, together)
    expected = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    count = 0
    for values, targets, mask in zip(*sequences(lengths), strict=True):
        alone = bptt.Stream([values], [targets], mask=[mask], batch=1)
        part, (one,) = gradient_of(bptt.Full(segment), net, alone)
        count += one.count
        expected = {name: expected[name] + part[name] for name in expected}
    assert count == update.count
    assert_same(found, expected)


@pytest.mark.parametrize("method", [bptt.Full(), bptt.Full(3), bptt.Truncated(20)])
def test_the_order_and_number_of_lanes_do_not_matter_to_whole_sequences(method: Any) -> None:
    net, lengths = network("LSTM", learn_initial_state=True), [5, 2, 7, 4]
    expected, updates = gradient_of(method, net, ragged(lengths, lanes=1))
    layouts = ({"lanes": 2}, {"lanes": 4}, {"batch": 1}, {"batch": 3}, {"lanes": 2, "shuffle": 3})
    for options in layouts:
        found, others = gradient_of(method, net, ragged(lengths, **options))
        assert_same(found, expected)
        assert sum(u.count for u in others) == sum(u.count for u in updates)


class Noisy(nn.Module):
    """A cell with dropout on its state: every run draws anew."""

    hidden_size = 3

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.RNNCell(2, 3, dtype=F64)
        self.draws: list[Tensor] = []

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        kept = nn.functional.dropout(torch.ones_like(state), 0.5)
        self.draws.append(kept.detach())
        return self.cell(input, state * kept)


class NoisyReadout(nn.Module):
    """A readout that draws random numbers too."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(3, 1, dtype=F64)

    def forward(self, outputs: Tensor) -> Tensor:
        return self.read(outputs) + 0.0 * torch.rand(1, dtype=F64)


@pytest.mark.parametrize("segment", [1, 2, 4])
@pytest.mark.parametrize("noisy_readout", [False, True])
def test_segments_draw_the_same_random_numbers_again(segment: int, noisy_readout: bool) -> None:
    torch.manual_seed(3)
    net = Network(Noisy(), NoisyReadout() if noisy_readout else nn.Linear(3, 1, dtype=F64))
    stream = series(8)
    torch.manual_seed(11)
    expected, (whole,) = gradient_of(bptt.Full(), net, stream)
    drawn, net.cell.draws = net.cell.draws, []
    torch.manual_seed(11)
    found, (update,) = gradient_of(bptt.Full(segment), net, stream)
    assert update.loss == pytest.approx(whole.loss, rel=1e-13)
    assert_same(found, expected)
    assert_same(net.cell.draws[:8], drawn)
    bounds = list(range(0, 8, segment))[:-1]  # the last segment is swept as it is first run
    again = [drawn[t] for low in reversed(bounds) for t in range(low, min(low + segment, 8))]
    assert_same(net.cell.draws[8:], again)
    assert len({tuple(d.flatten().tolist()) for d in drawn}) > 1


def test_after_segments_the_generator_stands_where_the_forward_pass_left_it() -> None:
    net = Network(Noisy())
    stream = series(6, outputs=3)
    torch.manual_seed(2)
    for _ in range(6):
        nn.functional.dropout(torch.ones(2, 3, dtype=F64), 0.5)
    expected = torch.rand(3)
    torch.manual_seed(2)
    list(bptt.Full(2).updates(net, "mse", stream))
    assert_same(torch.rand(3), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_segments_draw_the_same_random_numbers_again_on_cuda() -> None:
    net = Network(Noisy().cuda(), nn.Linear(3, 1, dtype=F64).cuda())
    stream = bptt.Stream(data(8, 2, 2), data(8, 2, 1), device="cuda")
    torch.manual_seed(11)
    expected, _ = gradient_of(bptt.Full(), net, stream)
    torch.manual_seed(11)
    assert_same(gradient_of(bptt.Full(2), net, stream)[0], expected, 1e-9)


class Counting(nn.Module):
    """A cell that keeps a running mean in a buffer."""

    hidden_size = 3

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.cell, self.in_place = nn.RNNCell(2, 3, dtype=F64), in_place
        self.register_buffer("mean", torch.zeros(2, dtype=F64))

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        new = 0.9 * self.mean + 0.1 * input.detach().mean(dim=0)
        if self.in_place:
            self.mean.copy_(new)
        else:
            self.mean = new
        return self.cell(input - new, state)


@pytest.mark.parametrize("in_place", [True, False])
def test_a_cell_that_changes_its_buffers_is_refused_in_segments(in_place: bool) -> None:
    net = Network(Counting(in_place), nn.Linear(3, 1, dtype=F64))
    before = weights(net)
    with pytest.raises(bptt.CellError, match=r"Counting changes its buffer 'mean'.*Full\(\)"):
        list(bptt.Full(2).updates(net, "mse", series(6)))
    assert_same(weights(net), before, 0.0)
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("method", [bptt.Full(), bptt.Truncated(3)])
def test_such_a_cell_runs_in_one_piece(in_place: bool, method: Any) -> None:
    net = Network(Counting(in_place), nn.Linear(3, 1, dtype=F64))
    stream, mean = series(6), torch.zeros(2, dtype=F64)
    for update in method.updates(net, "mse", stream):
        assert update.loss > 0.0
        net.zero_grad()
    for step in only(stream).inputs:
        mean = 0.9 * mean + 0.1 * step.mean(dim=0)
    assert_same(net.cell.mean, mean)


def test_segments_hold_no_more_than_one_segments_graph() -> None:
    alive: list[int] = []

    class Watched(nn.Module):
        hidden_size = 2

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.eye(2, dtype=F64))

        def forward(self, input: Tensor, state: Tensor) -> Tensor:
            return Seen.apply(state @ self.weight + input)

    class Seen(torch.autograd.Function):
        held = 0

        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            if x.requires_grad or torch.is_grad_enabled() or ctx.needs_input_grad[0]:
                Seen.held += 1
                alive.append(Seen.held)
            return x.clone()

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            Seen.held -= 1
            return g

    net = Network(Watched())
    list(bptt.Full(4).updates(net, "mse", series(21, outputs=2)))
    assert Seen.held == 0
    assert max(alive) == 4
    alive.clear()
    list(bptt.Full().updates(net, "mse", series(21, outputs=2)))
    assert max(alive) == 21


def test_leaves_of_whole_numbers_pass_through_segments() -> None:
    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.RNNCell(2, 3, dtype=F64)

        def initial_state(self, batch: int) -> tuple[Tensor, Tensor]:
            return torch.zeros(batch, 3, dtype=F64), torch.zeros(batch, 1, dtype=torch.int64)

        def forward(self, input: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            return self.cell(input, state[0]) / (1 + state[1]), state[1] + 1

    net, stream = Network(Counted(), nn.Linear(3, 1, dtype=F64)), series(7)
    expected, _ = gradient_of(bptt.Full(), net, stream)
    for method in (bptt.Full(2), bptt.Truncated(9), bptt.Truncated(9, history="stored")):
        assert_same(gradient_of(method, net, stream)[0], expected)
        assert_same(leaves(method.state)[1], torch.full((2, 1), 7))
