"""`Full` in a memory budget: gradients against the whole, however it is cut."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import bptt
from bptt.gradients._sweep import Sweep
from bptt.losses import step_loss
from bptt.segments import SegmentPlan

from .helpers import (
    CELLS,
    F64,
    Network,
    assert_same,
    budget,
    data,
    examples,
    gradient_of,
    gradients,
    network,
    only,
    ragged,
    series,
)
from .test_full import Noisy


def swept(
    net: bptt.Network,
    stream: bptt.Stream,
    segment: int,
    kept: int,
    ahead: bool = False,
    **more: Any,
) -> tuple[Any, dict[str, Tensor], Any]:
    """Mean loss, gradient and last state of a sweep with this very plan."""
    batch = only(stream)
    net.zero_grad()
    plan = SegmentPlan(batch.length, batch.lanes, segment, kept, ahead)
    value, end = Sweep(net, step_loss("mse"), batch, plan, None).run()
    return value, gradients(net), end


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("learned", [False, True])
def test_revolve_gives_the_gradient_of_the_whole(kind: str, learned: bool) -> None:
    net = network(kind, learn_initial_state=learned)
    stream = ragged([7, 4, 9, 5, 3], lanes=2)  # resets within segments, lanes that end
    expected, (whole,) = gradient_of(bptt.Full(), net, stream)
    expected = {name: gradient / whole.count for name, gradient in expected.items()}
    for segment, kept in ((1, 3), (3, 2), (4, 9)):
        value, found, end = swept(net, stream, segment, kept)
        assert float(value) == pytest.approx(whole.loss, rel=1e-13)
        assert_same(found, expected)
        assert_same(end, whole.state)


@examples
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
    st.integers(1, 3),
    st.integers(1, 12),
    st.integers(1, 5),
    st.booleans(),
)
def test_no_schedule_changes_the_gradient(
    lengths: list[int], lanes: int, segment: int, kept: int, ahead: bool
) -> None:
    net, stream = network("GRU"), ragged(lengths, lanes=min(lanes, len(lengths)))
    expected, updates = gradient_of(bptt.Full(), net, stream)
    _, found, end = swept(net, stream, segment, kept, ahead)
    count = updates[0].count if updates else 1
    assert_same(found, {name: gradient / count for name, gradient in expected.items()})
    if updates:
        assert_same(end, updates[0].state)


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_revolve_draws_the_same_random_numbers_again(kept: int) -> None:
    torch.manual_seed(3)
    net = Network(Noisy(), nn.Linear(3, 1, dtype=F64))
    stream = series(9)
    torch.manual_seed(11)
    expected, (whole,) = gradient_of(bptt.Full(), net, stream)
    drawn, net.cell.draws = net.cell.draws, []
    after = torch.rand(3)
    torch.manual_seed(11)
    _, found, _ = swept(net, stream, 2, kept)
    assert_same(found, {name: gradient / whole.count for name, gradient in expected.items()})
    assert_same(torch.rand(3), after)  # the generator stands where one pass leaves it
    for draw in net.cell.draws:
        assert any(torch.equal(draw, known) for known in drawn)


def test_a_noisy_readout_draws_anew_for_every_segment() -> None:
    class Dropping(nn.Module):
        seen: ClassVar[list[Tensor]] = []

        def __init__(self) -> None:
            super().__init__()
            self.read = nn.Linear(3, 1, dtype=F64)

        def forward(self, outputs: Tensor) -> Tensor:
            kept = nn.functional.dropout(torch.ones_like(outputs), 0.5)
            self.seen.append(kept)
            return self.read(outputs * kept)

    net = Network(nn.RNNCell(2, 3, dtype=F64), Dropping())
    list(bptt.Full(segment=4).updates(net, "mse", series(12)))
    first, second, third = Dropping.seen
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


def test_a_closure_evaluates_the_same_gradient_again() -> None:
    net, stream = network("LSTM"), ragged([60, 50, 80], lanes=2)
    method = bptt.Full(memory=budget(net, stream))
    (update,) = method.updates(net, "mse", stream)
    first = gradients(net)
    assert float(update.closure()) == pytest.approx(update.loss, rel=1e-13)
    assert_same(gradients(net), first, 0.0)


@pytest.mark.parametrize("kind", ["Elman", "GRU", "LSTM", "Nested", "OwnStart"])
@pytest.mark.parametrize("share", [0.9, 0.5, 0.3])
def test_a_budget_gives_the_gradient_of_the_whole(kind: str, share: float) -> None:
    net, stream = network(kind), ragged([70, 41, 90, 55, 30], lanes=2)
    expected, (whole,) = gradient_of(bptt.Full(), net, stream)
    method = bptt.Full(memory=budget(net, stream, share))
    plan = method.plan(net, stream)
    assert plan.segments > 1
    assert plan.peak <= plan.budget  # type: ignore[operator]  # it was given one
    found, (update,) = gradient_of(method, net, stream)
    assert_same(found, expected)
    assert_same(update.state, whole.state)
    assert update.loss == pytest.approx(whole.loss, rel=1e-13)


def test_planning_leaves_gradients_and_random_numbers_alone() -> None:
    net, stream = Network(Noisy(), nn.Linear(3, 1, dtype=F64)), series(50)
    gradient_of(bptt.Full(), net, stream)
    list(bptt.Full().updates(net, "mse", stream))
    before = gradients(net)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    bptt.Full(memory="1GB").plan(net, stream)
    assert_same(gradients(net), before, 0.0)
    assert_same(torch.rand(3), expected, 0.0)


def test_nothing_counted_makes_no_update_but_the_state_goes_on() -> None:
    net = network()
    inputs, targets = data(40, 2, 2), data(40, 2, 1)
    stream = bptt.Stream(inputs, targets, mask=torch.zeros(40, 2, dtype=torch.bool))
    method = bptt.Full(memory=budget(net, series(40)))
    assert list(method.updates(net, "mse", stream)) == []
    assert_same(method.state, net.unfold(inputs)[1].detach())
    assert all(p.grad is None for p in net.parameters())
