"""The steps that networks take, told to whoever counts them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from threading import get_ident
from typing import Protocol


class Counter(Protocol):
    """Who counts steps of a cell, one of each lane, and may set a limit."""

    def spend(self, steps: int) -> None:
        """So many steps are taken; may raise what ends the work."""

    def left(self) -> tuple[float, float]:
        """How many steps, and seconds, may still be taken."""


_COUNTERS: list[tuple[int, Counter]] = []
"""And the threads that they count in. A list, not a context variable, which no compiler reads."""


@contextmanager
def counting(counter: Counter) -> Iterator[None]:
    """Within, ``counter`` is told of all steps that networks take forward in this thread."""
    here = (get_ident(), counter)
    _COUNTERS.append(here)
    try:
        yield
    finally:
        _COUNTERS.remove(here)


def spend(steps: int) -> None:
    """Tell of steps of a cell, those of every lane."""
    for thread, counter in _COUNTERS:
        if thread == get_ident():
            counter.spend(steps)


def left() -> tuple[float, float]:
    """How many steps, and seconds, may be taken before somebody wants to be asked."""
    limits = [counter.left() for thread, counter in _COUNTERS if thread == get_ident()]
    return min((n for n, _ in limits), default=inf), min((s for _, s in limits), default=inf)
