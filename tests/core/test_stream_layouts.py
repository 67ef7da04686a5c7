"""Every step lies on a lane once and every target counts once, whatever the layout."""

from __future__ import annotations

import functools
import operator
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

import bptt

from .addressed import LENGTHS, SEEDS, address_stream, addresses, counted_of, every, lanes_of
from .helpers import F64, assert_same, data, examples, only


@examples
@given(lengths=LENGTHS, lanes=st.integers(1, 6), seed=SEEDS)
def test_every_step_of_every_sequence_lies_on_one_lane_once(
    lengths: list[int], lanes: int, seed: int | None
) -> None:
    lanes = min(lanes, len(lengths))
    stream = address_stream(lengths, lanes=lanes, shuffle=seed)
    for _ in range(3):
        (batch,) = stream.batches()
        rows = lanes_of(batch)
        assert sorted(functools.reduce(operator.iadd, rows, [])) == every(lengths)
        for j, row in enumerate(rows):
            firsts = [t for t, address in enumerate(row) if address % 1000 == 0]
            assert firsts[0] == 0
            assert batch.reset[:, j].nonzero()[:, 0].tolist() == firsts[1:]
            for low, high in zip(firsts, [*firsts[1:], len(row)], strict=True):
                assert row[low:high] == list(range(row[low], row[low] + high - low))
        assert counted_of([batch]) == [(a, a) for a in every(lengths)]
        assert stream.counted == stream.steps == sum(lengths)
        assert batch.length == max(map(len, rows))


@examples
@given(length=st.integers(1, 40), lanes=st.integers(1, 8), horizon=st.integers(0, 5))
def test_one_series_is_cut_into_contiguous_lanes_without_losing_the_tail(
    length: int, lanes: int, horizon: int
) -> None:
    lanes = min(lanes, length)
    stream = bptt.Stream(addresses(length), addresses(length), lanes=lanes, horizon=horizon)
    batch = only(stream)
    rows = lanes_of(batch)
    assert functools.reduce(operator.iadd, rows, []) == list(range(length))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1
    assert not batch.reset.any()
    assert counted_of([batch]) == [(t, t + horizon) for t in range(length - horizon)]


@examples
@given(lengths=LENGTHS, size=st.integers(1, 7), seed=SEEDS)
def test_every_epoch_in_batches_takes_every_sequence_once(
    lengths: list[int], size: int, seed: int | None
) -> None:
    stream = address_stream(lengths, batch=size, shuffle=seed)
    orders = []
    for _ in range(2):
        rows = [lanes_of(batch) for batch in stream.batches()]
        assert all(len(row) == size for row in rows[:-1])
        assert 1 <= len(rows[-1]) <= size
        flat = [lane for row in rows for lane in row]
        assert sorted(functools.reduce(operator.iadd, flat, [])) == every(lengths)
        assert all(lane == list(range(lane[0], lane[0] + len(lane))) for lane in flat)
        orders.append([lane[0] // 1000 for lane in flat])
    assert not any(batch.reset.any() for batch in stream.in_order())
    if seed is None:
        assert orders == [list(range(len(lengths)))] * 2
    again = address_stream(lengths, batch=size, shuffle=seed)
    again.epoch = 1  # the order depends on seed and epoch alone
    rows = [lanes_of(batch) for batch in again.batches()]
    assert [lane[0] // 1000 for row in rows for lane in row] == orders[1]
    kept = [lane[0] // 1000 for batch in stream.in_order() for lane in lanes_of(batch)]
    assert kept == list(range(len(lengths)))


def test_a_shuffle_draws_another_order_every_epoch() -> None:
    stream = address_stream([1] * 30, batch=30, shuffle=0)
    orders = [lanes_of(next(iter(stream.batches()))) for _ in range(3)]
    assert orders[0] != orders[1] != orders[2] != orders[0]


@examples
@given(
    lengths=LENGTHS,
    horizon=st.integers(0, 4),
    burn_in=st.integers(0, 3),
    mask_seed=st.integers(0, 5),
    layout=st.sampled_from(["lanes", "batch", "laned"]),
    width=st.integers(1, 3),
)
def test_horizon_mask_and_burn_in_count_what_they_should_within_each_sequence(
    lengths: list[int], horizon: int, burn_in: int, mask_seed: int, layout: str, width: int
) -> None:
    if layout == "laned":
        lengths = [lengths[0]] * width
    generator = torch.Generator().manual_seed(mask_seed)
    masks = [torch.rand(n, generator=generator) < 0.7 for n in lengths]
    values = [addresses(n, j) for j, n in enumerate(lengths)]
    targets = [value.where(mask, torch.nan) for value, mask in zip(values, masks, strict=True)]
    options: dict[str, Any] = {"horizon": horizon, "burn_in": burn_in}
    if layout == "laned":
        inputs = torch.stack(values, dim=1)[:, :, None]
        goals, mask = torch.stack(targets, dim=1)[:, :, None], torch.stack(masks, dim=1)
        stream = bptt.Stream(inputs, goals, mask=mask, **options)
    else:
        options[layout] = min(width, len(lengths))
        stream = bptt.Stream(values, targets, mask=masks, **options)
    expected = [
        (1000 * j + t, 1000 * j + t + horizon)
        for j, n in enumerate(lengths)
        for t in range(burn_in, n - horizon)
        if masks[j][t + horizon]
    ]
    assert counted_of(list(stream.in_order())) == expected
    assert stream.counted == len(expected)
    assert stream.steps == sum(lengths)


@examples
@given(
    lengths=LENGTHS,
    layout=st.sampled_from(["lanes", "batch", "series"]),
    width=st.integers(1, 3),
    features=st.integers(1, 3),
)
def test_gather_brings_every_step_back_to_where_it_came_from(
    lengths: list[int], layout: str, width: int, features: int
) -> None:
    values = [data(n, features, seed=j) for j, n in enumerate(lengths)]
    if layout == "series":
        whole = torch.cat(values)
        stream = bptt.Stream(whole, whole, lanes=min(width, len(whole)))
        assert_same(stream.gather([b.inputs for b in stream.in_order()]), whole, 0.0)
        return
    stream = bptt.Stream(values, values, **{layout: min(width, len(lengths))})
    assert_same(stream.gather([b.inputs for b in stream.in_order()]), values, 0.0)


def test_arrays_lists_and_tensors_are_read_alike() -> None:
    values = data(6, 2)
    expected = only(bptt.Stream(values, values)).inputs
    assert_same(only(bptt.Stream(values.numpy(), values.numpy(), dtype=F64)).inputs, expected, 0.0)
    assert only(bptt.Stream(values.numpy(), values.numpy())).inputs.dtype == torch.float32
    numbers = bptt.Stream([1.0, 2.0, 3.0], horizon=1, dtype=F64)
    assert_same(only(numbers).inputs[:, 0, 0], torch.tensor([1.0, 2.0, 3.0], dtype=F64), 0.0)
    assert only(
        bptt.Stream(torch.ones(4, 2, dtype=torch.int64), horizon=1)
    ).inputs.dtype.is_floating_point
    assert only(bptt.Stream(torch.arange(4), data(4, 1))).inputs.dtype == torch.int64


def test_a_stream_never_changes_what_it_was_given() -> None:
    inputs, targets = data(6, 2, 2), data(6, 2, 1)
    mask = torch.ones(6, 2, dtype=torch.bool)
    stream = bptt.Stream(inputs, targets, mask=mask, burn_in=2)
    assert stream.counted == 8
    assert mask.all()
    single = torch.ones(6, dtype=torch.bool)
    assert bptt.Stream(inputs[:, 0], targets[:, 0], mask=single, burn_in=2).counted == 4
    assert single.all()
