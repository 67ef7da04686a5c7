"""Random numbers that are drawn again when a segment is run again, or leave no trace at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Draws = tuple[Tensor, ...]
"""The state of the CPU's random numbers, and of those of every GPU of a kind that is in use."""


def draws(like: Draws | None = None) -> Draws:
    """Where the generators stand; ``like`` itself if they stand there, so that it is kept once."""
    now = (torch.get_rng_state(), *accelerator_draws())
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


@contextmanager
def undrawn(enabled: bool = True) -> Iterator[None]:
    """Whatever is drawn, afterwards the generators stand where they stood.

    PyTorch's own ``fork_rng`` would start up every GPU of the machine, whether it is used or not,
    and warn where there are several.
    """
    before = draws() if enabled else None
    try:
        yield
    finally:
        if before is not None:
            _go(before)


def accelerator() -> str | None:
    """The kind of GPU that is in use and draws random numbers: ``"cuda"``, say."""
    kind = torch.accelerator.current_accelerator()
    if kind is None:
        return None
    module = torch.get_device_module(kind)
    started = getattr(module, "is_initialized", module.is_available)
    return kind.type if started() and hasattr(module, "get_rng_state") else None


def accelerator_draws() -> list[Tensor]:
    """Where the generators of all its devices stand."""
    module = _module()
    if module is None:
        return []
    every = getattr(module, "get_rng_state_all", None)
    return [module.get_rng_state()] if every is None else list(every())


def set_accelerator_draws(states: list[Tensor]) -> None:
    """Put them there, as many of them as there are devices."""
    module = _module()
    if module is None or not states:
        return
    if hasattr(module, "set_rng_state_all"):
        module.set_rng_state_all(states[: module.device_count()])
    else:
        module.set_rng_state(states[0])


def _module() -> Any:
    kind = accelerator()
    return None if kind is None else torch.get_device_module(kind)


def _go(place: Draws) -> None:
    torch.set_rng_state(place[0])
    set_accelerator_draws(list(place[1:]))
