"""Methods count every loss of a stream as often as they say, and nothing that is masked."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import bptt

from .addressed import LENGTHS, SEEDS, active, address_stream, addresses, counted_of
from .helpers import F64, Network, assert_same, examples, gradient_of, network, only, ragged


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
