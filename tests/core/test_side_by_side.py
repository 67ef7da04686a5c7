"""Segments of one lane unfolded side by side, and memory that serves one segment after another."""

from __future__ import annotations

import gc
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import bptt
from bptt.engine.runtime import batched_segments
from bptt.gradients._sweep import Sweep
from bptt.losses import step_loss
from bptt.reuse import Reuse, empty, reusing
from bptt.segments import SegmentPlan

from .helpers import CELLS, F64, Network, assert_same, data, examples, gradients, network, only

# -- side by side ----------------------------------------------------------------------------------


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many segments went together, each time."""
    counts: list[int] = []
    run = batched_segments.run

    def counting(cell: nn.Module, inputs: Any, *rest: Any, **more: Any) -> Any:
        counts.append(len(inputs))
        return run(cell, inputs, *rest, **more)

    monkeypatch.setattr(batched_segments, "run", counting)
    return counts


WHOLE = {"Elman", "Leaky", "GRU", "LSTM", "Stack", "RNNCell", "GRUCell", "LSTMCell"}
"""Some of the cells that the core runs whole."""


def native(kind: str = "GRU", **options: Any) -> bptt.Network:
    """A network that the core runs, if it can."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return network(kind, backend="auto", **options)


def documents(lengths: list[int]) -> bptt.Stream:
    """One lane on which documents follow each other, with resets between them."""
    return bptt.Stream([data(n, 2) for n in lengths], [data(n, 1) for n in lengths], lanes=1)


def swept(
    net: bptt.Network, stream: bptt.Stream, segment: int, kept: int, rows: int, ahead: bool = False
) -> tuple[Any, dict[str, Tensor], Any]:
    """Mean loss, gradient and last state of a sweep with this very plan."""
    batch = only(stream)
    net.zero_grad()
    plan = SegmentPlan(batch.length, 1, segment, kept, ahead, rows)
    value, end = Sweep(net, step_loss("mse"), batch, plan, None).run()
    return value, gradients(net), end


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("learned", [False, True])
def test_side_by_side_is_one_by_one(kind: str, learned: bool, together: list[int]) -> None:
    net = native(kind, learn_initial_state=learned, clip_state_gradient=0.3)
    stream = documents([13, 4, 9])
    expected = swept(net, stream, 4, 9, 1)
    assert not together
    for rows, kept in ((2, 9), (4, 9), (3, 2)):
        assert_same(swept(net, stream, 4, kept, rows)[1:], expected[1:])
    assert bool(together) or kind not in WHOLE


@examples
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
    st.integers(1, 7),
    st.integers(1, 5),
    st.integers(2, 5),
    st.booleans(),
)
def test_no_number_of_rows_changes_the_gradient(
    lengths: list[int], segment: int, kept: int, rows: int, ahead: bool
) -> None:
    net, stream = native("GRU", learn_initial_state=True), documents(lengths)
    expected = swept(net, stream, sum(lengths), 1, 1)
    found = swept(net, stream, segment, kept, rows, ahead)
    assert float(found[0]) == pytest.approx(float(expected[0]), rel=1e-12)
    assert_same(found[1:], expected[1:])


def test_the_last_segment_and_the_initial_state_go_alone(together: list[int]) -> None:
    swept(native("GRU"), documents([30]), 4, 9, 3)
    assert together == [3, 3]  # the last is shorter, the first has no state


def test_what_the_core_does_not_run_goes_one_by_one(together: list[int]) -> None:
    net = native("GRU")
    eager = Network(net.cell, net.readout, backend="eager")
    expected = swept(net, documents([30]), 4, 9, 1)
    assert_same(swept(eager, documents([30]), 4, 9, 3)[1:], expected[1:])
    assert not together


def test_one_lane_is_planned_side_by_side() -> None:
    torch.manual_seed(0)
    cell, readout = bptt.cells.GRU(2, 8, dtype=F64), nn.Linear(8, 1, dtype=F64)
    net, eager = (Network(cell, readout, backend=b) for b in ("native", "eager"))
    one, two = documents([9000]), bptt.Stream(data(9000, 2, 2), data(9000, 2, 1))
    whole = bptt.Full().plan(net, one).peak
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        plan = bptt.Full(memory=int(whole * 0.5)).plan(net, one)
        assert plan.beside == batched_segments.ROWS
        assert f"{batched_segments.ROWS - 1} more, unfolded side by side" in str(plan)
        assert plan.peak <= 0.9 * int(whole * 0.5)
        alone = SegmentPlan(plan.steps, 1, plan.segment, plan.kept, costs=plan.costs)
        assert plan.costs is not None
        others = (batched_segments.ROWS - 1) * plan.costs.unfold(plan.segment)
        assert plan.peak - alone.peak >= others
        # Too little for segments that are long enough, more lanes, no program: one by one.
        assert bptt.Full(memory=int(whole * 0.1)).plan(net, one).beside == 1
        assert bptt.Full(memory=int(whole * 0.5)).plan(net, two).beside == 1
        assert bptt.Full(memory=int(whole * 0.5)).plan(eager, one).beside == 1
    finally:
        torch.set_num_threads(before)


# -- memory that is used again ---------------------------------------------------------------------


def test_memory_is_lent_again_when_no_view_of_it_is_left() -> None:
    memory = Reuse()
    (one,) = memory.empty(((4, 3), F64))
    place, view = one.data_ptr(), one[1:, :2]
    del one
    (other,) = memory.empty(((4, 3), F64))
    assert other.data_ptr() != place  # it is still looked at
    del view
    (again,) = memory.empty(((4, 3), F64))
    assert again.data_ptr() == place


def test_arrays_of_one_block_do_not_overlap() -> None:
    arrays = Reuse().empty(
        ((3, 5), F64), ((7,), torch.bool), ((2, 2), torch.float32), ((0, 3), F64)
    )
    for number, array in enumerate(arrays):
        array.fill_(number)
        assert array.data_ptr() % 8 == 0
    for number, array in enumerate(arrays[:3]):
        assert bool((array == array.new_full((), number)).all())
    assert [tuple(array.shape) for array in arrays] == [(3, 5), (7,), (2, 2), (0, 3)]


def test_what_is_too_small_is_given_up() -> None:
    memory = Reuse()
    small = memory.empty(((10,), F64), ((10,), F64))
    del small
    (large,) = memory.empty(((1000,), F64))
    place = large.data_ptr()
    del large
    first = memory.empty(((10,), F64))
    second = memory.empty(((10,), F64))
    assert first[0].data_ptr() == place
    assert second[0].data_ptr() != place
    assert len(memory._free) == 0


def test_all_blocks_have_the_size_of_the_largest_where_it_is_known() -> None:
    memory = Reuse(least=8000)
    (small,) = memory.empty(((10,), F64))
    place = small.data_ptr()
    del small
    assert memory.empty(((1000,), F64))[0].data_ptr() == place


def test_only_within_its_scope_is_memory_used_again() -> None:
    like, memory = torch.zeros(1, dtype=F64), Reuse()
    with reusing(memory):
        place = empty(like, [(8,)])[0].data_ptr()
        assert empty(like, [(8,)])[0].data_ptr() == place
    held = empty(like, [(8,)])[0]
    assert held.data_ptr() != place
    gc.collect()
    assert len(memory._free) == 1


def test_segments_take_the_memory_of_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks: set[int] = set()
    lent = Reuse._lent

    def seen(self: Reuse, size: int) -> Tensor:
        found = lent(self, size)
        blocks.add(found.data_ptr())
        return found

    monkeypatch.setattr(Reuse, "_lent", seen)
    net, stream = native("GRU", hidden=8), documents([9000])
    peak = bptt.Full().plan(net, stream).peak
    method = bptt.Full(memory=int(peak * 0.3))
    assert method.plan(net, stream).segments > 8
    list(method.updates(net, "mse", stream))
    assert 1 <= len(blocks) <= 2


def test_what_a_user_keeps_is_not_used_again() -> None:
    kept: list[Tensor] = []
    copies: list[Tensor] = []

    class Watching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read = nn.Linear(3, 1, dtype=F64)

        def forward(self, outputs: Tensor) -> Tensor:
            kept.append(outputs)
            copies.append(outputs.detach().clone())
            return self.read(outputs)

    net = Network(bptt.cells.GRU(2, 3, dtype=F64), Watching(), backend="native")
    list(bptt.Full(segment=4).updates(net, "mse", documents([30])))
    assert len(kept) == 8
    for outputs, copy in zip(kept, copies, strict=True):
        assert torch.equal(outputs, copy)
