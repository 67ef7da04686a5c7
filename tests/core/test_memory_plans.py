"""The plan of `Full` for a memory budget, and what it costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import bptt
from bptt.engine.frontend import find
from bptt.gradients._sweep import Sweep
from bptt.losses import step_loss
from bptt.segments import Freed, _bytes, bytes_of, readable
from bptt.segments._bytes import peak_of

from .helpers import F64, budget, network, only, series


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
