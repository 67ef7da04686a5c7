"""Random numbers that are drawn again when a segment is run again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

Draws = tuple[Tensor, ...]
"""The state of the CPU's random numbers, and of those of every GPU in use."""


def draws(like: Draws | None = None) -> Draws:
    """Where the generators stand; ``like`` itself if they stand there, so that it is kept once."""
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]  # untyped in torch
    now = (torch.get_rng_state(), *gpus)
    return like if like is not None and same(like, now) else now


def same(one: Draws, other: Draws) -> bool:
    """Whether nothing was drawn between the two."""
    return len(one) == len(other) and all(map(torch.equal, one, other))


@contextmanager
def drawn_from(place: Draws) -> Iterator[None]:
    """Draw from ``place`` on; afterwards the generators stand where they stood."""
    before = draws()
    _go(place)
    try:
        yield
    finally:
        _go(before)


def _go(place: Draws) -> None:
    torch.set_rng_state(place[0])
    if len(place) > 1:
        torch.cuda.set_rng_state_all(list(place[1:]))
