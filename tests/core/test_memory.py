"""`Full` in a memory budget, its plan, and `checkpointed_unfold`: gradients against the whole."""

from __future__ import annotations

from functools import cache
from math import comb
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import bptt
from bptt.engine.frontend import find
from bptt.gradients._sweep import Sweep
from bptt.losses import step_loss
from bptt.segments import (
    Freed,
    SegmentPlan,
    _bytes,
    advances,
    bytes_of,
    one_ahead,
    readable,
    repetitions,
    reversed_states,
)
from bptt.segments._bytes import peak_of
from bptt.state import leaves

from .helpers import (
    CELLS,
    F64,
    Network,
    assert_same,
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

# -- Revolve ---------------------------------------------------------------------------------------


@cache
def fewest(segments: int, kept: int) -> int:
    """The least number of advances, by trying every place of the next kept state."""
    if segments <= 1:
        return 0
    if kept == 1:
        return segments * (segments - 1) // 2
    return min(k + fewest(segments - k, kept - 1) + fewest(k, kept) for k in range(1, segments))


@pytest.mark.parametrize("kept", range(1, 7))
def test_revolve_advances_as_often_as_was_published(kept: int) -> None:
    for segments in range(1, 50):
        run = [0]

        def advance(start: int, stop: int, state: int, run: list[int] = run) -> int:
            assert state == start < stop
            run[0] += stop - start
            return stop

        order = list(reversed_states(segments, kept, 0, advance))
        assert order == [(i, i) for i in reversed(range(segments))]
        r = next(r for r in range(segments + 1) if comb(kept + r, kept) >= segments)
        assert run[0] == advances(segments, kept) == r * segments - comb(kept + r, kept + 1)
        assert run[0] == fewest(segments, kept)
        assert repetitions(segments, kept) == r


def test_revolve_holds_no_more_states_than_it_may() -> None:
    class Held:
        alive = 0
        most = 0

        def __init__(self) -> None:
            Held.alive += 1
            Held.most = max(Held.most, Held.alive)

        def __del__(self) -> None:
            Held.alive -= 1

    for _ in reversed_states(40, 4, Held(), lambda start, stop, state: Held()):
        pass
    assert Held.most <= 4 + 2  # the one at hand and the one that follows it


# -- the gradient ----------------------------------------------------------------------------------


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


def budget(net: bptt.Network, stream: bptt.Stream, share: float = 0.6) -> int:
    """Bytes that do not hold the whole."""
    return int(bptt.Full().plan(net, stream).peak * share)


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


# -- the plan --------------------------------------------------------------------------------------


def test_a_plan_reads_as_it_is_meant() -> None:
    net, stream = network("GRU", hidden=8), series(400)
    plan = bptt.Full(memory=budget(net, stream, 0.25)).plan(net, stream)
    text = str(plan)
    for expected in ("400 steps on 2 lanes", f"{plan.segments} of {plan.segment} steps"):
        assert expected in text
    assert f"{plan.recomputed:,}, each once" in text
    assert f"{readable(plan.peak)} of {readable(plan.budget or 0)}" in text
    assert plan.recomputed == plan.segment * (plan.segments - 1)


def test_what_fits_is_done_in_one_piece() -> None:
    net, stream = network(), series(40)
    plan = bptt.Full(memory="1GB").plan(net, stream)
    assert (plan.segments, plan.recomputed) == (1, 0)
    assert plan.peak == bptt.Full().plan(net, stream).peak


def test_less_memory_means_more_recomputation() -> None:
    net, stream = network("GRU", hidden=8), series(3000)
    whole = bptt.Full().plan(net, stream).peak
    plans = [bptt.Full(memory=int(whole * s)).plan(net, stream) for s in (1, 0.5, 0.05, 0.03)]
    recomputed = [plan.recomputed for plan in plans]
    assert recomputed == sorted(recomputed)
    assert plans[-1].repetitions > 1
    assert all(plan.peak <= (plan.budget or 0) for plan in plans)


def test_a_tenth_is_left_over_where_something_fits_the_rest() -> None:
    net, stream = network("GRU", hidden=8), series(3000)
    whole = bptt.Full().plan(net, stream).peak
    roomy = bptt.Full(memory=int(whole * 0.5)).plan(net, stream)
    assert roomy.budget == int(whole * 0.5)
    assert roomy.peak <= 0.9 * roomy.budget + 1
    assert bptt.Full(memory=int(whole * 1.05)).plan(net, stream).segments > 1  # in one: too tight


def test_an_impossible_budget_says_the_least_possible_one() -> None:
    net, stream = network("GRU", hidden=8), series(3000)
    with pytest.raises(bptt.OptionError, match=r"the least possible is ([\d.]+ [KM]?B)") as error:
        bptt.Full(memory=1000).plan(net, stream)
    assert "none is run more than once again" in str(error.value)
    words = str(error.value).split("the least possible is ")[1].split(",")[0]
    assert bptt.Full(memory=words).plan(net, stream).segments == 3000
    with pytest.raises(bptt.OptionError, match="least possible"):
        list(bptt.Full(memory=1000).updates(net, "mse", stream))
    assert all(p.grad is None for p in net.parameters())


def test_the_measured_peak_is_the_predicted_one() -> None:
    """Of tensors; the C library's share is measured by benchmarks/memory.py."""
    net, stream = network("LSTM", hidden=16), series(2000)
    for share in (0.5, 0.2):
        plan = bptt.Full(memory=budget(net, stream, share)).plan(net, stream)
        assert plan.costs is not None
        sweep = Sweep(net, step_loss("mse"), only(stream), plan, None)
        _, peak, _ = peak_of(sweep.run)
        assert plan.peak - plan.freed == pytest.approx(peak, rel=0.15)


def test_what_the_core_works_in_is_counted() -> None:
    torch.manual_seed(0)
    net = bptt.Network(bptt.cells.GRU(4, 64), nn.Linear(64, 1))
    stream = bptt.Stream(torch.randn(40, 1, 4), torch.randn(40, 1, 1))
    costs = bptt.Full().plan(net, stream).costs
    assert costs is not None
    matrix = 4 * 64 * 3 * 64
    # Packed to run, to run and save, and to go back; and what the products after the loop take.
    assert 3 * matrix < costs.core < 12 * matrix
    # Beside what the unfolding keeps, a step going back takes the gradients of three gates and of
    # its output.
    assert costs.sweep.each - costs.unfold.each >= 4 * 64 * (3 + 1)
    eager = bptt.Network(net.cell, net.readout, backend="eager")
    plain = bptt.Full().plan(eager, stream).costs
    assert plain is not None
    assert plain.core == 0


def test_one_program_serves_all_segments() -> None:
    net = bptt.Network(bptt.cells.GRU(2, 19, dtype=F64), nn.Linear(19, 1, dtype=F64))
    list(bptt.Full(segment=4).updates(net, "mse", series(12)))
    form = find(net.cell, torch.zeros(1, 1, 2, dtype=F64), torch.zeros(1, 19, dtype=F64)).form
    assert len(form.plans) == 2  # with a gradient, and without


def test_freed_memory_is_looked_at_between_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    net, stream = network("GRU", hidden=8), series(400)
    method = bptt.Full(memory=budget(net, stream, 0.25))
    segments = method.plan(net, stream).segments
    looks = [0]

    def resident() -> int:
        looks[0] += 1
        return 0

    monkeypatch.setattr(_bytes, "resident", resident)
    list(method.updates(net, "mse", stream))
    assert looks[0] >= 2 * segments - 1  # each is run once, and all but the last advanced
    looks[0] = 0
    list(bptt.Full(segment=50).updates(net, "mse", stream))
    assert looks[0] == 0


def test_freed_memory_goes_back_when_it_is_more_than_planned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held, times = [100], []

    def give_back() -> None:
        times.append(held[0])
        held[0] -= 40

    monkeypatch.setattr(_bytes, "resident", lambda: held[0])
    monkeypatch.setattr(_bytes, "give_back", give_back)
    monkeypatch.setattr(_bytes, "KEPT", 5)
    freed = Freed(10)
    assert (times, held[0]) == ([100], 60)
    # Up to 70 were planned. What stays of 200 is others': from there on, 5 more.
    for now, expected in ((70, 1), (71, 2), (70, 2), (200, 3), (165, 3), (166, 4)):
        held[0] = now
        freed.tidy()
        assert len(times) == expected
    held[0] = 0
    freed.tidy(always=True)
    assert len(times) == 5
    Freed(None).tidy(always=True)
    assert len(times) == 5


@pytest.mark.parametrize(
    ("given", "expected"),
    [(7, 7), ("7", 7), ("256MB", 256_000_000), ("1.5 GiB", 3 << 29), ("2kb", 2000), ("9 B", 9)],
)
def test_amounts_of_memory(given: Any, expected: int) -> None:
    assert bytes_of(given) == expected


@pytest.mark.parametrize("bad", [0, -5, True, 1.5, "much", "12 XB", "-3MB", "", "0MB"])
def test_what_is_no_amount_of_memory(bad: Any) -> None:
    with pytest.raises(bptt.OptionError, match=r"memory must be .*'256MB'"):
        bptt.Full(memory=bad)
    with pytest.raises(bptt.OptionError, match="memory must be"):
        bptt.checkpointed_unfold(nn.RNNCell(2, 3), torch.zeros(4, 1, 2), memory=bad)


def test_segments_or_memory_not_both() -> None:
    with pytest.raises(bptt.OptionError, match="either segment= or memory="):
        bptt.Full(segment=3, memory="1MB")
    with pytest.raises(bptt.OptionError, match="either segment= or memory="):
        bptt.checkpointed_unfold(nn.RNNCell(2, 3), torch.zeros(4, 1, 2), segment=2, memory=100)


def test_under_a_profiler_nothing_can_be_measured() -> None:
    net, stream = network(), series(20)
    with (
        torch.autograd.profiler.profile(),
        pytest.raises(bptt.BpttError, match=r"profiler.*segment="),
    ):
        bptt.Full(memory="1MB").plan(net, stream)


# -- unfolding ahead -------------------------------------------------------------------------------


def test_one_ahead_gives_the_same_items_and_restores_the_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert list(one_ahead(iter(range(5)))) == list(range(5))
        assert list(one_ahead(iter(()))) == []
        items = one_ahead(iter(range(5)))
        next(items)
        assert torch.get_num_threads() == 1
        items.close()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_an_error_in_the_other_thread_comes_through() -> None:
    def items() -> Any:
        yield 1
        raise bptt.DataError("row 7")

    with pytest.raises(bptt.DataError, match="row 7"):
        list(one_ahead(items()))


# -- checkpointed_unfold ---------------------------------------------------------------------------


def loss_of(outputs: Tensor, last: Any) -> Tensor:
    """Any loss of one's own: of all outputs together, and of the last state."""
    weights = torch.linspace(-1, 1, len(outputs), dtype=F64)[:, None, None]
    total = (outputs.tanh() * weights).sum() ** 2
    return total + sum((leaf**2).sum() for leaf in leaves(last) if leaf.is_floating_point())


def all_gradients(unfolding: Any, kind: str, **options: Any) -> tuple[Any, Any, list[Any]]:
    """Outputs, last state, and the gradients of everything, of a ragged run with resets."""
    cell = network(kind).cell
    inputs = data(11, 3, 2).requires_grad_()
    start = bptt.state.map_state(
        lambda leaf: (leaf.detach() + 0.1).requires_grad_(), bptt.state.initial_state(cell, 3)
    )
    initial = bptt.state.map_state(
        lambda leaf: (leaf.detach() - 0.2).requires_grad_(), bptt.state.initial_state(cell, 3)
    )
    reset = torch.zeros(11, 3, dtype=torch.bool)
    reset[4, 1] = reset[7, 0] = reset[8, 2] = True
    lengths = torch.tensor([11, 8, 0])
    outputs, last = unfolding(
        cell, inputs, start, initial=initial, reset=reset, lengths=lengths, **options
    )
    into = [inputs, *leaves(start), *leaves(initial), *cell.parameters()]
    found = torch.autograd.grad(loss_of(outputs, last), into, allow_unused=True)
    return outputs, last, list(found)


def eager(*given: Any, **options: Any) -> Any:
    return bptt.unfold(*given, backend="eager", **options)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("clip", [None, 0.05])
def test_checkpointed_unfold_is_unfold(kind: str, clip: float | None) -> None:
    expected = all_gradients(eager, kind, clip_state_gradient=clip)
    for segment, backend in ((1, "eager"), (4, "eager"), (3, "auto"), (None, "auto")):
        found = all_gradients(
            bptt.checkpointed_unfold,
            kind,
            clip_state_gradient=clip,
            segment=segment,
            backend=backend,
        )
        assert_same(found[0], expected[0])
        assert_same(found[1], expected[1])
        for one, other in zip(found[2], expected[2], strict=True):
            assert (one is None) == (other is None) or not float(
                (one if other is None else other).abs().max()
            )
            if one is not None and other is not None:
                assert_same(one, other)


def test_checkpointed_unfold_within_a_budget() -> None:
    torch.manual_seed(0)
    cell = bptt.cells.GRU(2, 8, dtype=F64)
    inputs = data(3000, 2, 2).requires_grad_()
    with pytest.raises(bptt.OptionError, match="least possible"):
        bptt.checkpointed_unfold(cell, inputs, memory=500)
    want = torch.autograd.grad(loss_of(*bptt.unfold(cell, inputs)), [inputs, *cell.parameters()])
    for memory in ("1GB", "600KB", "400KB"):
        outputs, last = bptt.checkpointed_unfold(cell, inputs, memory=memory)
        got = torch.autograd.grad(loss_of(outputs, last), [inputs, *cell.parameters()])
        assert_same(got, want, 1e-11)


def test_checkpointed_unfold_holds_less_until_the_gradient_comes() -> None:
    cell, inputs = bptt.cells.GRU(4, 32), torch.randn(2000, 1, 4)
    bptt.checkpointed_unfold(cell, inputs[:50])
    bptt.unfold(cell, inputs[:50])
    _, _, whole = peak_of(lambda: bptt.unfold(cell, inputs))
    (outputs, _), _, held = peak_of(lambda: bptt.checkpointed_unfold(cell, inputs))
    assert held < outputs.nbytes * 1.2 < whole / 3


def test_a_second_backward_pass_gives_the_same() -> None:
    cell, inputs = bptt.cells.GRU(2, 3, dtype=F64), data(20, 2, 2)
    loss = loss_of(*bptt.checkpointed_unfold(cell, inputs, segment=3))
    first = torch.autograd.grad(loss, list(cell.parameters()), retain_graph=True)
    assert_same(torch.autograd.grad(loss, list(cell.parameters())), first, 0.0)


def test_gradients_of_gradients_are_refused() -> None:
    cell, inputs = bptt.cells.GRU(2, 3, dtype=F64), data(20, 2, 2)
    loss = loss_of(*bptt.checkpointed_unfold(cell, inputs))
    (first, *_) = torch.autograd.grad(loss, list(cell.parameters()), create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_checkpointed_noise_is_drawn_again() -> None:
    cell, inputs = Noisy(), data(9, 2, 2)
    torch.manual_seed(4)
    want = torch.autograd.grad(loss_of(*eager(cell, inputs)), list(cell.parameters()))
    torch.manual_seed(4)
    outputs, last = bptt.checkpointed_unfold(cell, inputs, segment=2, backend="eager")
    after = torch.rand(2)
    got = torch.autograd.grad(loss_of(outputs, last), list(cell.parameters()))
    assert_same(got, want)
    torch.manual_seed(4)
    eager(cell, inputs)
    assert_same(torch.rand(2), after, 0.0)


def test_what_a_segment_cannot_give_a_gradient_is_refused() -> None:
    gate = torch.ones(3, dtype=F64, requires_grad=True)

    class Gated(nn.Module):
        hidden_size = 3

        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.RNNCell(2, 3, dtype=F64)

        def forward(self, input: Tensor, state: Tensor) -> Tensor:
            return self.cell(input, state) * (gate * 2)

    with pytest.raises(bptt.CellError, match="none of its parameters"):
        bptt.checkpointed_unfold(Gated(), data(5, 1, 2), backend="eager")


def test_checkpointed_unfold_refuses_what_unfold_refuses() -> None:
    cell = bptt.cells.GRU(2, 3, dtype=F64)
    for options in (
        {"reset": torch.zeros(5, 2, dtype=torch.bool)},
        {"lengths": torch.tensor([9])},
        {"state": torch.zeros(1, 4, dtype=F64)},
    ):
        with pytest.raises(bptt.ShapeError) as ours:
            bptt.checkpointed_unfold(cell, data(4, 1, 2), **options)
        with pytest.raises(bptt.ShapeError) as theirs:
            bptt.unfold(cell, data(4, 1, 2), **options)
        assert str(ours.value) == str(theirs.value)
    with pytest.raises(bptt.ShapeError, match="reads 2"):
        bptt.checkpointed_unfold(cell, data(4, 1, 7))
    assert bptt.checkpointed_unfold(cell, data(0, 1, 2))[0].shape == (0, 1, 3)
