"""What a sweep of a network over a batch holds, measured on some of its own steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import or_
from typing import Any

import torch
from torch import Tensor

from bptt.engine.runtime.batched_segments import ROWS
from bptt.gradients._sweep import Unfolding
from bptt.gradients._window import advance
from bptt.losses import StepLoss
from bptt.network import Network
from bptt.segments import (
    Costs,
    Peak,
    Unchanged,
    arrays,
    deltas,
    drawn_from,
    draws,
    held,
    peaks,
    programs,
    state_bytes,
)
from bptt.state import State, detach, leaves
from bptt.streams import Batch, Chunk, copies

PROBE = 32
"""Steps of the longest piece that is measured: what is allocated grows in proportion to them."""

PROBED_LANES = 128
"""Many lanes are measured over fewer steps, so many on all lanes together, but at least `FEWEST`:
a large batch would otherwise spend a tenth of a pass on its plan."""

FEWEST = 8

ONE_CORE = 6
"""Lanes that one core takes through a step in about the time of one: the rows of which the core's
product keeps the results in registers."""


def costs_of(network: Network, loss: StepLoss, batch: Batch) -> Costs:
    """Run a few steps from the middle of a batch, and its last ones, where lanes end; the costs
    are the higher ones of both. Gradients and random numbers stay as they are.

    Raises:
        CellError: the cell changes its own buffers.
    """
    steps = min(PROBE, max(PROBED_LANES // batch.lanes, FEWEST), batch.length)
    unchanged = Unchanged(network.cell)
    with drawn_from(draws()):
        places = (batch.length - steps, batch.length // 2 - steps // 2)
        chunks = (batch.chunk(place, place + steps) for place in places)
        kinds = {_kind(chunk): chunk for chunk in chunks}
        found = [_peaks(network, loss, chunk) for chunk in kinds.values()]
        unchanged.check()
        chunk = batch.chunk(0, 1)
        start = _start(network, chunk)
    unfolded, swept, advanced = (reduce(or_, every) for every in zip(*found, strict=True))
    core = programs(network.cell, chunk.inputs, start, network.backend)
    fields = (chunk.inputs, chunk.targets, chunk.mask, chunk.reset)
    return Costs(
        sweep=swept.higher(deltas(core, chunk.inputs, start)),
        unfold=unfolded,
        advance=advanced,
        state=state_bytes(start),
        gradients=sum(p.nbytes for p in network.parameters() if p.requires_grad),
        core=held(core),
        arrays=arrays(core, chunk.inputs, start),
        data=batch.held,
        chunk=sum(f.nbytes for f in fields) if copies(batch) else 0.0,
        on_cpu=chunk.inputs.device.type == "cpu",
    )


def _kind(chunk: Chunk) -> tuple[bool, ...]:
    """What of a chunk decides, besides its sizes, what is computed."""
    return chunk.any_reset is None, chunk.lengths is None, bool(chunk.mask.all())


def _peaks(network: Network, loss: StepLoss, chunk: Chunk) -> list[Peak]:
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

    return [*peaks(swept, chunk.steps), *peaks(advanced, chunk.steps)]


def _start(network: Network, chunk: Chunk) -> State:
    return detach(network.initial_state(chunk.inputs.shape[1], like=chunk.inputs))


def _gradient_like(leaf: Tensor) -> Tensor | None:
    return torch.zeros_like(leaf) if leaf.requires_grad else None


def beside(network: Network, batch: Batch) -> int:
    """How many segments of one lane take little longer side by side than one of them: where the
    core runs all of the unfolding, as many as its products have rows in registers."""
    if batch.lanes > 1:
        return 1
    chunk = batch.chunk(0, 1)
    found = programs(network.cell, chunk.inputs, _start(network, chunk), network.backend)
    return ROWS if found and found[0].executable is not None else 1


def idle_core(network: Network, batch: Batch) -> bool:
    """Whether a second core may unfold ahead: there is one, one is enough for the lanes, and the
    core of this library runs the cell, so that no code of the user's runs in another thread."""
    if batch.lanes > ONE_CORE or torch.get_num_threads() == 1:
        return False
    chunk = batch.chunk(0, 1)
    start = _start(network, chunk)
    return bool(programs(network.cell, chunk.inputs, start, network.backend))
