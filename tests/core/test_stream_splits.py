"""The parts of a stream have every target once, and know their past and nothing of the future."""

from __future__ import annotations

import functools
import operator

from hypothesis import given
from hypothesis import strategies as st

import bptt

from .addressed import address_stream, addresses, counted_of, every, lanes_of
from .helpers import examples, only


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
