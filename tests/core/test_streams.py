"""Streams: every step lies on a lane once, every target counts once, whatever the layout.

Inputs and targets carry their own address, ``1000 · sequence + step``, so that a step can be
recognised wherever it went.
"""

from __future__ import annotations

import functools
import operator
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import bptt

from .helpers import F64, Network, assert_same, data, examples, gradient_of, network, only, ragged

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=6)
SEEDS = st.none() | st.integers(0, 3)


def addresses(length: int, sequence: int = 0) -> Tensor:
    return 1000.0 * sequence + torch.arange(length, dtype=F64)


def address_stream(lengths: list[int], **options: Any) -> bptt.Stream:
    values = [addresses(n, j) for j, n in enumerate(lengths)]
    return bptt.Stream(values, values, **options)


def active(batch: Any) -> Tensor:
    """Which steps are data, [time, lane]: what follows a lane's end is padding."""
    if batch.lengths is None:
        return torch.ones_like(batch.mask)
    return torch.arange(batch.length)[:, None] < batch.lengths


def lanes_of(batch: Any) -> list[list[int]]:
    return [batch.inputs[active(batch)[:, j], j, 0].int().tolist() for j in range(batch.lanes)]


def counted_of(batches: list[Any]) -> list[tuple[int, int]]:
    """The (input, target) addresses that count, sorted."""
    pairs = []
    for batch in batches:
        inputs, targets = batch.inputs[batch.mask][:, 0], batch.targets[batch.mask][:, 0]
        pairs += list(zip(inputs.int().tolist(), targets.int().tolist(), strict=True))
    return sorted(pairs)


def every(lengths: list[int]) -> list[int]:
    return [1000 * j + t for j, n in enumerate(lengths) for t in range(n)]


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
    length=st.integers(6, 40),
    lanes=st.integers(1, 3),
    horizon=st.integers(0, 3),
    sizes=st.sampled_from([(0.5,), (0.6, 0.2), (0.3, 0.3, 0.3)]),
    laned=st.booleans(),
)
def test_split_puts_every_target_in_one_part_and_leaks_nothing(
    length: int, lanes: int, horizon: int, sizes: tuple[float, ...], laned: bool
) -> None:
    values = addresses(length)
    if laned:
        values = values[:, None, None].repeat(1, lanes, 1)
        stream = bptt.Stream(values, values, horizon=horizon)
    else:
        stream = bptt.Stream(values, values, lanes=lanes, horizon=horizon)
    try:
        parts = stream.split(*sizes)
    except bptt.DataError:
        assert length < 4 * (horizon + 2) * len(sizes)
        return
    assert len(parts) == len(sizes) + 1
    seen: list[tuple[int, int]] = []
    for part in parts:
        pairs = counted_of(list(part.in_order()))
        inputs = sorted(set(functools.reduce(operator.iadd, lanes_of(only(part)), [])))
        if seen and pairs:
            assert pairs[0][1] > seen[-1][1]
        before = [] if part.preceding is None else lanes_of(only(part.preceding))
        assert sorted(set(functools.reduce(operator.iadd, before, []))) == list(range(inputs[0]))
        assert max([t for _, t in pairs], default=0) <= inputs[-1] + horizon
        seen += sorted(set(pairs))
    assert seen == [(t, t + horizon) for t in range(length - horizon)]


def test_a_part_split_again_still_knows_all_of_its_past() -> None:
    values = addresses(20)
    _, later = bptt.Stream(values, values, horizon=1).split(0.5)
    first, last = later.split(0.4)
    for part in (first, last):
        past: list[int] = []
        before = part.preceding
        while before is not None:
            past = lanes_of(only(before))[0] + past
            before = before.preceding
        assert past == list(range(lanes_of(only(part))[0][0]))


@examples
@given(lengths=st.lists(st.integers(1, 6), min_size=4, max_size=8), batch=st.none() | st.just(2))
def test_a_list_is_split_by_whole_sequences_in_their_order(
    lengths: list[int], batch: int | None
) -> None:
    parts = address_stream(lengths, batch=batch).split(0.5, 0.25)
    found = [lane for part in parts for one in part.in_order() for lane in lanes_of(one)]
    assert functools.reduce(operator.iadd, found, []) == every(lengths)
    assert all(part.preceding is None for part in parts)


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


class Cheap(nn.Module):
    """The smallest trainable cell."""

    hidden_size = 1

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.1, dtype=F64))

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        return self.weight * state + 1e-3 * input


def targets_seen(method: Any, stream: bptt.Stream) -> tuple[list[int], list[bptt.Update]]:
    """Every target address that the loss was given, in the order of the updates."""
    seen: list[int] = []

    def loss(prediction: Tensor, target: Tensor) -> Tensor:
        seen.extend(target.flatten().int().tolist())
        return (prediction - target).square()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        updates = list(method.updates(Network(Cheap()), loss, stream))
    return seen, updates


def stream_of(
    lengths: list[int], layout: str, width: int, horizon: int, seed: int | None
) -> bptt.Stream:
    if layout == "series":
        values = addresses(sum(lengths))
        return bptt.Stream(values, values, lanes=min(width, len(values)), horizon=horizon)
    options: dict[str, Any] = {layout: min(width, len(lengths)), "shuffle": seed}
    return address_stream(lengths, horizon=horizon, **options)


LAYOUTS = st.sampled_from(["lanes", "batch", "series"])


@examples
@given(
    lengths=LENGTHS,
    layout=LAYOUTS,
    width=st.integers(1, 4),
    horizon=st.integers(0, 2),
    seed=SEEDS,
    depth=st.integers(1, 9),
    less=st.integers(0, 8),
    kind=st.sampled_from(["carried", "recomputed", "stored", "mean"]),
)
def test_new_counts_every_loss_once_where_depth_is_at_least_stride(
    lengths: list[int],
    layout: str,
    width: int,
    horizon: int,
    seed: int | None,
    depth: int,
    less: int,
    kind: str,
) -> None:
    stream = stream_of(lengths, layout, width, horizon, seed)
    method = bptt.Truncated(
        depth,
        max(1, depth - less),
        context="recomputed" if kind == "recomputed" else "carried",
        history="stored" if kind == "stored" else "replay",
        combine="mean" if kind == "mean" else "sum",
    )
    seen, updates = targets_seen(method, stream)
    assert sorted(seen) == [target for _, target in counted_of(list(stream.in_order()))]
    assert sum(update.count for update in updates) == len(seen) == stream.counted


@examples
@given(
    lengths=LENGTHS,
    layout=LAYOUTS,
    width=st.integers(1, 4),
    horizon=st.integers(0, 2),
    segment=st.none() | st.integers(1, 9),
)
def test_full_counts_every_loss_once(
    lengths: list[int], layout: str, width: int, horizon: int, segment: int | None
) -> None:
    stream = stream_of(lengths, layout, width, horizon, None)
    seen, updates = targets_seen(bptt.Full(segment), stream)
    assert sorted(seen) == [target for _, target in counted_of(list(stream.in_order()))]
    assert sum(update.count for update in updates) == stream.counted
    assert len(updates) <= len(list(stream.in_order()))


@examples
@given(steps=st.integers(1, 30), depth=st.integers(1, 12), stride=st.integers(1, 12))
def test_windows_start_at_every_stride_and_cover_every_step(
    steps: int, depth: int, stride: int
) -> None:
    for loss in ("new", "last", "all"):
        seen, updates = targets_seen(
            bptt.Truncated(depth, stride, loss), bptt.Stream(addresses(steps), addresses(steps))
        )
        spans = [(u.start, u.stop) for u in updates]
        assert [start for start, _ in spans] == [i * stride for i in range(len(spans))]
        assert all(stop == min(start + depth, steps) for start, stop in spans)
        assert all(stop < steps for _, stop in spans[:-1])
        assert spans[-1][1] == steps or spans[-1][0] + stride >= steps
        ends = [0, *(b for _, b in spans[:-1])]
        counts = {
            "new": [b - max(a, before) for (a, b), before in zip(spans, ends, strict=True)],
            "last": [1] * len(spans),
            "all": [b - a for a, b in spans],
        }[loss]
        assert [u.count for u in updates] == counts
        covered = {t for a, b in spans for t in range(a, b)}
        if depth >= stride:
            assert covered == set(range(steps))
        if loss == "last":
            assert seen == [b - 1 for _, b in spans]
        if loss == "all":
            assert seen == [t for a, b in spans for t in range(a, b)]
        if loss == "new":
            assert seen == sorted(covered)


@examples
@given(
    lengths=LENGTHS,
    lanes=st.integers(1, 3),
    horizon=st.integers(0, 2),
    depth=st.integers(1, 6),
    burn_in=st.integers(0, 2),
)
def test_an_epochs_loss_is_sum_over_count_and_truncation_does_not_change_it(
    lengths: list[int], lanes: int, horizon: int, depth: int, burn_in: int
) -> None:
    options = {"lanes": min(lanes, len(lengths)), "horizon": horizon, "burn_in": burn_in}
    stream, net = ragged(lengths, **options), network()
    _, whole = gradient_of(bptt.Full(), net, stream)
    _, parts = gradient_of(bptt.Truncated(depth), net, stream)
    if not whole:
        assert not parts
        assert stream.counted == 0
        return
    total = sum(u.loss * u.count for u in parts) / sum(u.count for u in parts)
    assert total == pytest.approx(whole[0].loss, rel=1e-12)
    alone, number = 0.0, 0
    batch = only(stream)
    predictions, _ = net(batch.inputs, reset=batch.reset, lengths=batch.lengths)
    for t, lane in batch.mask.nonzero().tolist():
        alone += float((predictions[t, lane] - batch.targets[t, lane]).detach().square().mean())
        number += 1
    assert whole[0].loss == pytest.approx(alone / number, rel=1e-12)


METHODS = {
    "full": bptt.Full(),
    "segments": bptt.Full(3),
    "truncated": bptt.Truncated(4, 2),
    "mean": bptt.Truncated(4, 2, combine="mean"),
    "recomputed": bptt.Truncated(4, 2, context="recomputed"),
    "stored": bptt.Truncated(4, 2, history="stored"),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", ["Elman", "LSTM", "Nested"])
def test_masked_targets_and_padding_never_matter(name: str, kind: str) -> None:
    net = network(kind, learn_initial_state=True)
    expected, _ = gradient_of(METHODS[name], net, ragged([5, 3, 6, 2], lanes=2))
    for poison in (float("nan"), float("inf"), 1e300):
        stream = ragged([5, 3, 6, 2], lanes=2)
        batch = only(stream)
        assert not bool(active(batch).all())
        assert not bool(batch.mask.all())
        batch.targets[~batch.mask] = poison
        batch.inputs[~active(batch)] = poison
        found, _ = gradient_of(METHODS[name], net, stream)
        assert all(bool(g.isfinite().all()) for g in found.values())
        assert_same(found, expected, 0.0)


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
