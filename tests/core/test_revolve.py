"""Revolve: with few states kept it goes back through a chain of segments in the fewest advances."""

from __future__ import annotations

from functools import cache
from math import comb

import pytest

from bptt.segments import advances, repetitions, reversed_states


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
