"""Which states to keep, and when to run which segment again: the schedule *Revolve*.

A chain of segments is swept in reverse, each from the state that enters it. Of these states a few
are kept at a time; the others are found again by advancing from one that is. The schedule advances
as little as is possible (A. Griewank and A. Walther, Algorithm 799: Revolve, ACM Transactions on
Mathematical Software 26, 2000). With a state for each segment it is the two levels of T. Chen et
al., Training deep nets with sublinear memory cost (2016): every segment is advanced once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import comb
from typing import TypeVar

T = TypeVar("T")


def repetitions(segments: int, kept: int) -> int:
    """The least r such that C(kept + r, kept) >= segments: no segment is advanced more often."""
    if kept == 1:
        return segments - 1
    r = 0
    while comb(kept + r, kept) < segments:
        r += 1
    return r


def advances(segments: int, kept: int) -> int:
    """How many segments are advanced before all are swept, with ``kept`` states at a time, the
    first among them: r·T − C(s + r, s + 1)."""
    r = repetitions(segments, kept)
    return r * segments - comb(kept + r, kept + 1)


def reversed_states(
    segments: int, kept: int, first: T, advance: Callable[[int, int, T], T]
) -> Iterator[tuple[int, T]]:
    """Each segment's number and the state that enters it, the last segment first.

    Args:
        segments: how many there are, at least 1.
        kept: how many states may be kept at a time, at least 1.
        first: the state that enters segment 0.
        advance: ``(start, stop, state)`` runs the segments ``start`` to ``stop - 1``.
    """
    places, states = [0], [first]
    end = segments
    while end:
        if places[-1] == end:  # its segment has been swept
            places.pop()
            states.pop()
        at, state = places[-1], states[-1]
        while at < end - 1:
            free = kept - len(places)
            stop = at + _stride(end - at, free + 1)
            state = advance(at, stop, state)
            at = stop
            if free and at < end - 1:
                places.append(at)
                states.append(state)
        yield at, state
        del state
        end -= 1


def _stride(segments: int, kept: int) -> int:
    """How far to the next state that is kept."""
    if kept == 1:
        return segments - 1
    r = repetitions(segments, kept)
    # The rest has one state fewer and may be repeated r times; what is passed is repeated r - 1
    # times more, and not so rarely that it could have been longer.
    fewest = comb(kept + r - 2, kept) if r > 1 else 1
    return max(segments - comb(kept - 1 + r, kept - 1), fewest, 1)
