"""What a sweep of a network over a batch holds, measured on some of its own steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bptt.gradients._sweep import Unfolding
from bptt.gradients._window import advance
from bptt.losses import StepLoss
from bptt.network import Network
from bptt.segments import (
    Costs,
    Line,
    Unchanged,
    deltas,
    drawn_from,
    draws,
    held,
    lines,
    programs,
    state_bytes,
)
from bptt.state import State, detach, leaves
from bptt.streams import Batch, Chunk

PROBE = 32
"""Steps of the longest piece that is measured: what is allocated grows in proportion to them."""

ONE_CORE = 6
"""Lanes that one core takes through a step in about the time of one: the rows of which the core's
product keeps the results in registers."""


def costs_of(network: Network, loss: StepLoss, batch: Batch) -> Costs:
    """Run a few steps from the middle of a batch, and its last ones, where lanes end; the costs
    are the higher ones of both. Gradients and random numbers stay as they are.

    Raises:
        CellError: the cell changes its own buffers.
    """
    steps = min(PROBE, batch.length)
    unchanged = Unchanged(network.cell)
    with drawn_from(draws()):
        places = {batch.length // 2 - steps // 2, batch.length - steps}
        found = [_lines(network, loss, batch.chunk(p, p + steps)) for p in sorted(places)]
        unchanged.check()
        chunk = batch.chunk(0, 1)
        start = _start(network, chunk)
    worst = [max(pair, key=lambda line: line(1 << 16)) for pair in zip(*found, strict=True)]
    unfolded, swept, advanced = worst
    core = programs(network.cell, chunk.inputs, start, network.backend)
    return Costs(
        sweep=swept._replace(each=swept.each + deltas(core, chunk.inputs, start)),
        unfold=unfolded,
        advance=advanced,
        state=state_bytes(start),
        gradients=sum(p.nbytes for p in network.parameters() if p.requires_grad),
        core=held(core),
        data=batch.held,
        on_cpu=chunk.inputs.device.type == "cpu",
    )


def _lines(network: Network, loss: StepLoss, chunk: Chunk) -> list[Line]:
    """Of unfolding, of unfolding and going back, and of running without a gradient."""
    owned = [p for p in network.parameters() if p.requires_grad]
    count = max(int(chunk.mask.sum()), 1)

    def swept(steps: int) -> list[Callable[[], Any]]:
        part = chunk.part(0, steps)
        held: list[Any] = []

        def unfold() -> None:
            held.append(Unfolding.of(network, part, _start(network, part)))

        def back() -> None:
            after = [_gradient_like(leaf) for leaf in leaves(held[0].last)]
            _, (roots, seeds) = held[0].roots(network, loss, count, after)
            entry = leaves(held[0].entry)
            into = [*owned, *(leaf for leaf in entry if leaf.requires_grad)]
            if roots:
                torch.autograd.grad(roots, into, seeds, allow_unused=True)

        return [unfold, back]

    def advanced(steps: int) -> list[Callable[[], Any]]:
        part = chunk.part(0, steps)
        start = _start(network, part)
        return [lambda: advance(network, part, start)]

    return [*lines(swept, chunk.steps), *lines(advanced, chunk.steps)]


def _start(network: Network, chunk: Chunk) -> State:
    return detach(network.initial_state(chunk.inputs.shape[1], like=chunk.inputs))


def _gradient_like(leaf: Tensor) -> Tensor | None:
    return torch.zeros_like(leaf) if leaf.requires_grad else None


def idle_core(network: Network, batch: Batch) -> bool:
    """Whether a second core may unfold ahead: there is one, one is enough for the lanes, and the
    core of this library runs the cell, so that no code of the user's runs in another thread."""
    if batch.lanes > ONE_CORE or torch.get_num_threads() == 1:
        return False
    chunk = batch.chunk(0, 1)
    start = _start(network, chunk)
    return bool(programs(network.cell, chunk.inputs, start, network.backend))
